"""Devices: what `device` and `precision` mean on this machine."""

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from nanogpt2.base.screen.screen import detail
from nanogpt2.base.system.errors import DeviceError

if TYPE_CHECKING:
    import torch

DRIVERS = {"linux": ("libcuda.so.1",), "win32": ("nvcuda.dll", "amdhip64.dll")}
AMD_GPU = Path("/dev/kfd")  # of the kernel's own driver; torch brings the rest of ROCm


def check_driver(name: str) -> None:
    """Raise DeviceError where this machine has no driver for the device `name`.

    Quick, since it does without torch: it finds the plain mistake before anything is run.
    """
    drivers = map(_loads, DRIVERS.get(sys.platform, ()))
    if name == "cuda" and not any(drivers) and not AMD_GPU.exists():
        raise DeviceError("device: found cuda, but this machine has no GPU driver; use auto or cpu")
    if name == "mps" and (platform.system(), platform.machine()) != ("Darwin", "arm64"):
        raise DeviceError(
            "device: found mps, but this is not an Apple silicon Mac; use auto or cpu"
        )


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def find_device(name: str) -> "torch.device":
    """Return the device called `name`: auto takes CUDA, then MPS, then the CPU."""
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    kind = name.partition(":")[0]  # such as cuda:1
    if not available.get(kind, False):
        raise DeviceError(f"device: found {name}, which torch does not see here; use auto or cpu")
    detail(f"device: {name}")
    return torch.device(name)


def precision_dtype(
    precision: str, device: "torch.device", *, compiled: bool = True
) -> "torch.dtype":
    """Return what matrix products compute in on `device`; auto takes what it has hardware for.

    On a CPU auto needs `compiled` operators too: torch's own lose more in bfloat16 than its
    products gain.
    """
    import torch

    from nanogpt2.device import torch_private

    if precision == "fp16" and device.type == "cpu":
        raise DeviceError("precision: found fp16, which no CPU is quick at; use auto or bf16")
    if precision == "fp8" and not (compiled and _gpu_has_fp8(device)):
        raise DeviceError(
            "precision: found fp8, which needs compile: true, and an NVIDIA GPU of the Ada or"
            " Hopper generation or newer; use auto or bf16"
        )
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    dtypes["fp8"] = torch.bfloat16  # of everything but the products of linear layers
    if precision != "auto":
        return dtypes[precision]
    if device.type == "cpu":
        return torch.bfloat16 if compiled and torch_private.cpu_has_bf16() else torch.float32
    old_gpu = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if old_gpu else torch.bfloat16


def _gpu_has_fp8(device: "torch.device") -> bool:
    import torch

    if device.type != "cuda" or is_rocm():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 9)


def is_rocm() -> bool:
    """Return whether torch calls AMD's GPUs cuda, for which no kernel here was ever run."""
    import torch

    return torch.version.hip is not None


def autocast(
    device: "torch.device", dtype: "torch.dtype"
) -> Callable[[], AbstractContextManager[object]]:
    """Return what makes the context in which matrix products run in `dtype`."""
    import torch

    if dtype == torch.float32:
        return nullcontext
    return lambda: torch.autocast(device.type, dtype=dtype)


def use_deterministic_kernels(wanted: bool) -> None:
    """Make CUDA compute the same bits each time, for the whole process, or let it choose freely."""
    import torch

    from nanogpt2.device import torch_private

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    # torch.use_deterministic_algorithms does the same, but imports the compiler, for seconds
    torch.set_deterministic_debug_mode("error" if wanted else "default")
    torch_private.leave_memory_unfilled()
