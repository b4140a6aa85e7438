"""Which optimizer updates which weights, and at which rate: AdamW and Muon.

Loshchilov & Hutter 2019, "Decoupled Weight Decay Regularization".
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from nanogpt2.config.config import Config
from nanogpt2.train.finetune.lora import PREFIX
from nanogpt2.train.finetune.trainable import rate_factor
from nanogpt2.train.optimizers.muon import Muon, NorMuon
from nanogpt2.train.optimizers.plain import AdamW

FOR_MATRICES = {"muon": Muon, "normuon": NorMuon}  # those of the blocks; AdamW has the rest


def decay_groups(parameters: Iterable[nn.Parameter]) -> tuple[list[nn.Parameter], ...]:
    """Return (matrices and embeddings, which decay; biases and norms, which do not)."""
    parameters = list(parameters)
    return [p for p in parameters if p.dim() >= 2], [p for p in parameters if p.dim() < 2]


def make_optimizers(model: nn.Module, config: Config) -> list[torch.optim.Optimizer]:
    """Return the optimizers over all weights of `model` that train, each weight in one group.

    Each group keeps its highest learning rate as `peak_lr`.
    """
    for_adamw: list[dict[str, Any]] = []
    for_muon: list[dict[str, Any]] = []
    for factor, named in by_rate(model, config).items():
        blocks = {
            name: p
            for name, p in named.items()
            if config.optimizer in FOR_MATRICES and name.startswith("h.") and p.dim() == 2
            if PREFIX not in name
        }
        decay, no_decay = decay_groups(p for name, p in named.items() if name not in blocks)
        rate, muon_rate = config.learning_rate * factor, config.muon_learning_rate * factor
        for_adamw += [
            {"params": decay, "weight_decay": config.weight_decay, "lr": rate},
            {"params": no_decay, "weight_decay": 0.0, "lr": rate},
        ]
        for_muon.append({"params": list(blocks.values()), "lr": muon_rate})
    optimizers: list[torch.optim.Optimizer] = []
    if groups := [group for group in for_adamw if group["params"]]:
        betas = config.beta1, config.beta2
        optimizers.append(AdamW(groups, lr=config.learning_rate, betas=betas, fused=True))
    if groups := [group for group in for_muon if group["params"]]:
        rate = config.muon_learning_rate
        make = FOR_MATRICES[config.optimizer]
        optimizers.append(make(groups, lr=rate, weight_decay=config.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def by_rate(model: nn.Module, config: Config) -> dict[float, dict[str, nn.Parameter]]:
    """Return the weights that train, by name, under the factor of their learning rate."""
    rates: dict[float, dict[str, nn.Parameter]] = {}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            rates.setdefault(rate_factor(name, config), {})[name] = weight
    return rates
