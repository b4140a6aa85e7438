"""The speed at which a device's memory is read, and the share of it that sampling uses."""

import time

import torch

from nanogpt2.device.pages import Room

BYTES = {"cpu": 2**28, "cuda": 2**30}  # more than caches hold
REPEATS = 7


def measure_bandwidth(device: str) -> float:
    """Return the bytes a second at which torch sums a large block on `device`, the best of a few.

    On a CPU by torch's threads, in large pages, as packed weights lie.
    """
    count = BYTES[torch.device(device).type] // 4
    block = (
        Room(4 * count).take(count, torch.float32).fill_(1)
        if device == "cpu"
        else torch.ones(count, device=device)
    )
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        block.sum().item()
        times.append(time.perf_counter() - start)
    return 4 * count / min(times)


def utilization(steps: float, weights: int, bandwidth: float) -> str:
    """Return the memory bandwidth utilization (MBU) of so many steps a second.

    Each reads `weights` bytes of weights once, and of the memory's `bandwidth` bytes a second that
    is the share; above 100% where caches hold a part. What keys and values take is not counted.
    """
    return f"MBU {steps * weights / bandwidth:4.0%}"
