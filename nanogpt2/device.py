"""Devices: what `device` and `mixed_precision` mean on this machine."""

import ctypes
import os
import platform
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from nanogpt2.errors import DeviceError

if TYPE_CHECKING:
    import torch

DRIVERS = {"linux": ("libcuda.so.1", "libamdhip64.so"), "win32": ("nvcuda.dll",)}


def check_driver(name: str) -> None:
    """Raise DeviceError where this machine has no driver for the device `name`.

    Quick, since it does without torch: it finds the plain mistake before anything is run.
    """
    if name == "cuda" and not any(map(_loads, DRIVERS.get(sys.platform, ()))):
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
    if not available[name]:
        raise DeviceError(f"device: found {name}, which torch does not see here; use auto or cpu")
    return torch.device(name)


def mixed_dtype(device: "torch.device") -> "torch.dtype":
    """Return what mixed precision computes in: bfloat16, or float16 on CUDA without it."""
    import torch

    old_gpu = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.float16 if old_gpu else torch.bfloat16


def autocast(
    device: "torch.device", *, enabled: bool
) -> Callable[[], AbstractContextManager[object]]:
    """Return what makes the context in which matrix products run in the mixed precision."""
    import torch

    if not enabled:
        return nullcontext
    dtype = mixed_dtype(device)
    return lambda: torch.autocast(device.type, dtype=dtype)


def use_deterministic_kernels(wanted: bool) -> None:
    """Make CUDA compute the same bits each time, for the whole process, or let it choose freely."""
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
    torch.use_deterministic_algorithms(wanted)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # slow
