"""Learning rates: their schedule, and the groups that have them; the cosine is GPT-3's."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from nanogpt2.config.config import Config


def set_learning_rates(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's learning rate to `factor` times its peak, in place where it is a tensor."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(group["peak_lr"] * factor)
            else:
                group["lr"] = group["peak_lr"] * factor


def keep_rates_on_device(optimizers: Iterable[torch.optim.Optimizer], device: torch.device) -> None:
    """Make learning rates tensors on `device`, as a CUDA graph needs to see them change."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = torch.as_tensor(group["lr"]).to(device, copy=True)
            if "capturable" in group:
                group["capturable"] = True


def learning_rate_factor(step: int, config: Config) -> float:
    """Return the learning rate of `step` (0 is the first) as a fraction of its peak.

    It rises in a line over the warm-up, which is capped by max_iters. Then cosine falls all the
    way; trapezoid holds and falls in a line over the last decay_fraction of the steps after the
    warm-up. Both end, at the last step, at min_learning_rate_fraction.
    """
    warmup = min(config.warmup_iters, config.max_iters)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup + 1) / (config.max_iters - warmup)  # 0 < progress <= 1
    if config.schedule == "cosine":
        height = (1 + math.cos(math.pi * progress)) / 2
    else:
        height = min(1.0, (1 - progress) / config.decay_fraction)
    low = config.min_learning_rate_fraction
    return low + (1 - low) * height
