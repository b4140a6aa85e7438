"""AdamW with decay for matrices only, and the learning rate's warm-up and cosine decay.

Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization"; the schedule is GPT-3's.
"""

import math
from collections.abc import Iterable

import torch
from torch import nn

from nanogpt2.config import Config


def decay_groups(parameters: Iterable[nn.Parameter]) -> tuple[list[nn.Parameter], ...]:
    """Return (matrices and embeddings, which decay; biases and norms, which do not)."""
    parameters = list(parameters)
    return [p for p in parameters if p.dim() >= 2], [p for p in parameters if p.dim() < 2]


def make_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Return AdamW over all weights of `model`, each in one group."""
    decay, no_decay = decay_groups(model.parameters())
    groups = [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=betas, fused=True)


def learning_rate_at(
    step: int, *, peak: float, min_fraction: float, warmup_iters: int, max_iters: int
) -> float:
    """Return the learning rate of `step` (0 is the first).

    It rises linearly to `peak` over the warm-up, which is capped by `max_iters`, then falls along
    a cosine to `min_fraction * peak`, which the last step reaches.
    """
    warmup = min(warmup_iters, max_iters)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup + 1) / (max_iters - warmup)  # 0 < progress <= 1
    return peak * (min_fraction + (1 - min_fraction) * (1 + math.cos(math.pi * progress)) / 2)
