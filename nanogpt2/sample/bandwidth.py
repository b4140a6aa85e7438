"""How quickly a device's memory is read, and the share of that which sampling uses."""

import time

import torch

from nanogpt2.base.system.words import describe_amount
from nanogpt2.decode.ensemble.ensemble import Ensemble, Model
from nanogpt2.decode.pages import Room
from nanogpt2.sample.sample import Meter

BYTES = {"cpu": 2**28, "cuda": 2**30}  # more than caches hold
REPEATS = 7


def measure_bandwidth(device: torch.device | str) -> float:
    """Return the bytes a second at which torch sums a large block on `device`, the best of a few.

    On a CPU by torch's threads, in large pages, as packed weights lie.
    """
    device = torch.device(device)
    count = BYTES.get(device.type, 2**28) // 4
    block = (
        Room(4 * count).take(count, torch.float32).fill_(1)
        if device.type == "cpu"
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
    is the share; above 100% where caches hold a part, or guesses spare steps. What keys and values
    take is not counted.
    """
    return f"MBU {steps * weights / bandwidth:4.0%}"


def weights_read(model: Model, *, int8: bool = False) -> int:
    """Return the bytes of weights that a step of `model` reads, each of 8 bits with `int8`."""
    members = model.members if isinstance(model, Ensemble) else [model]
    factors = [factor for member in members for factor in member.factors()]
    return sum(factor.numel() * (1 if int8 else factor.element_size()) for factor in factors)


def describe_use(model: Model, meter: Meter, *, int8: bool = False) -> str:
    """Return in one line what a step took, and its use of the memory, which is measured now."""
    if not meter.steps:
        return "speed: no step followed the first token"
    steps = meter.steps / meter.seconds_of_steps
    each = describe_amount(meter.tokens_of_steps / meter.steps, "tokens")
    weights, bandwidth = weights_read(model, int8=int8), measure_bandwidth(model.wte.weight.device)
    return (
        f"speed: {1e3 / steps:.3g} ms a step, {each} each;"
        f" {weights / 1e6:,.1f} MB of weights at {bandwidth / 1e9:,.1f} GB/s,"
        f" {' '.join(utilization(steps, weights, bandwidth).split())}"
    )
