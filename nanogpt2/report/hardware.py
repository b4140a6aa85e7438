"""Hardware: how fast a device could be, how much memory it took, and how much energy.

Whatever is not known for sure is None, never a guess.
"""

import ctypes
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import torch

TERA = 1e12
POWERCAP = Path("/sys/class/powercap")
WRAP_SECONDS = 300.0  # a RAPL counter of 2^18 J begins anew after 300 s at 870 W

# TFLOP/s of NVIDIA's data sheets, dense (no sparsity), by the device's name without "NVIDIA" and
# "Tesla": in bfloat16 (V100, T4: float16) with float32 sums, in TF32, in float32. The names are
# whole ones: a slice of a GPU (MIG), a laptop's or an export model has other peaks.
PEAKS: dict[str, tuple[float | None, float | None, float | None]] = {
    "V100-SXM2-16GB": (125, 15.7, 15.7),  # before Ampere, TF32 is float32
    "V100-SXM2-32GB": (125, 15.7, 15.7),
    "V100-PCIE-16GB": (112, 14, 14),
    "V100-PCIE-32GB": (112, 14, 14),
    "T4": (65, 8.1, 8.1),
    "A100-SXM4-40GB": (312, 156, 19.5),
    "A100-SXM4-80GB": (312, 156, 19.5),
    "A100-PCIE-40GB": (312, 156, 19.5),
    "A100 80GB PCIe": (312, 156, 19.5),
    "A10": (125, 62.5, 31.2),
    "A30": (165, 82, 10.3),
    "A40": (149.7, 74.8, 37.4),
    "RTX A6000": (154.8, 77.4, 38.7),
    "L4": (121, 60, 30.3),
    "L40": (181, 90.5, 90.5),
    "L40S": (362, 183, 91.6),
    "RTX 6000 Ada Generation": (364.2, 182.1, 91.1),
    "H100 80GB HBM3": (989.4, 494.7, 66.9),
    "H100 PCIe": (756, 378, 51),
    "H100 NVL": (835, 417, 60),
    "GH200 480GB": (989.4, 494.7, 66.9),
    "H200": (989.4, 494.7, 66.9),
    "B200": (2250, None, None),
    "GeForce RTX 3090": (71, 35.6, 35.6),  # half of the float16 rate with float16 sums
    "GeForce RTX 3090 Ti": (80, 40, 40),
    "GeForce RTX 4080": (97.5, 48.7, 48.7),
    "GeForce RTX 4090": (165.2, 82.6, 82.6),
    "GeForce RTX 5090": (209.5, 104.8, 104.8),
}
COLUMNS = {"bfloat16": 0, "float16": 0, "tf32": 1, "float32": 2}


def device_name(device: torch.device) -> str:
    """Return what the device calls itself, or the number of threads on a CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu, {threads} thread{'s' * (threads > 1)}"
    return device.type


def peak_flops(name: str, precision: str) -> float | None:
    """Return the FLOP/s of which the device `name` is capable in a precision of COLUMNS."""
    peaks = PEAKS.get(name.removeprefix("NVIDIA ").removeprefix("Tesla "))
    peak = peaks[COLUMNS[precision]] if peaks and precision in COLUMNS else None
    return None if peak is None else peak * TERA


def float32_precision(device: torch.device) -> str:
    """Return what matrix products of float32 compute in: float32, tf32 or another."""
    setting = torch.backends.cuda.matmul.fp32_precision
    exact = device.type != "cuda" or setting in ("none", "ieee")
    return "float32" if exact else str(setting)


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes taken: in tensors on a GPU, else by this process on the host."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu":
        return None
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# --- Energy ---


class EnergyMeter:
    """Counts the energy that a GPU, or the host's processors, took since it was made, in joules.

    All that runs on them is in it. `joules` is None where the device does not tell.
    """

    def __init__(self, device: torch.device, *, powercap: Path = POWERCAP) -> None:
        is_gpu = device.type == "cuda"
        self.counters = gpu_counters(device) if is_gpu else processor_counters(powercap)
        self.joules: float | None = 0.0 if self.counters else None
        self.last = [read() for read, _ in self.counters]
        self.time = time.monotonic()

    def update(self) -> None:
        """Read the counters; to be called before one can have begun anew twice."""
        if self.joules is None:
            return
        now, before = time.monotonic(), self.time
        new = [read() for read, _ in self.counters]
        for (_, size), value, last in zip(self.counters, new, self.last, strict=True):
            if value is None or last is None or (size and now - before > WRAP_SECONDS):
                self.joules = None
                return
            self.joules += (value - last) % size if size else value - last
        self.last, self.time = new, now


Counter = tuple[Callable[[], float | None], float]  # reads joules; where it begins anew, or 0


def gpu_counters(device: torch.device) -> list[Counter]:
    """Return the counter of a GPU, from the library that comes with NVIDIA's driver."""
    try:
        nvml = ctypes.CDLL("nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1")
    except OSError:
        return []
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode()
    handle = ctypes.c_void_p()
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(handle)):
        return []

    def read() -> float | None:
        total = ctypes.c_ulonglong()  # millijoules since the driver was loaded
        failed = nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(total))
        return None if failed else total.value / 1000

    return [] if read() is None else [(read, 0.0)]


def processor_counters(root: Path) -> list[Counter]:
    """Return the counters of the host's processors (RAPL, on Linux), where they may be read."""
    counters: list[Counter] = []
    for zone in sorted(root.glob("intel-rapl:*")):  # AMD's too
        try:
            if not (zone / "name").read_text(encoding="utf-8").startswith("package"):
                continue  # a part of a processor, or the whole board
            size = read_joules(zone / "max_energy_range_uj")
            if size is None or read_joules(zone / "energy_uj") is None:
                return []
        except OSError:
            return []
        counters.append((partial(read_joules, zone / "energy_uj"), size))
    return counters


def read_joules(path: Path) -> float | None:
    """Return the joules that a file tells in microjoules; None where it may not be read."""
    try:
        return int(path.read_text(encoding="ascii")) / 1e6
    except (OSError, ValueError):
        return None
