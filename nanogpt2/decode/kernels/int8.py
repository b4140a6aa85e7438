"""Weights of 8 bits, in torch: what cpu.c makes of them is compared with what these make.

A row of weights is whole numbers times one scale (absmax quantization, Dettmers et al. 2022); what
it is multiplied by is rounded likewise, in groups of inputs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.base.system.errors import CheckpointError
from nanogpt2.model.gpt import GPT
from nanogpt2.model.operators import Operators, cap_logits

GROUP = 32  # inputs with one scale
LARGEST = 127  # of eight bits with a sign


def round_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale of each row of `matrix` (R, C), (R, 1), and its numbers as int8 (R, C)."""
    scales = matrix.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / LARGEST
    if not scales.isfinite().all():
        raise CheckpointError("a weight is not finite: training went wrong")
    return scales, (matrix / scales).round().to(torch.int8)


def round_inputs(x: Tensor) -> Tensor:
    """Return `x` (..., C) with each group of channels rounded to 8 bits."""
    groups = F.pad(x, (0, -x.shape[-1] % GROUP)).reshape(*x.shape[:-1], -1, GROUP)
    largest = groups.abs().amax(-1, keepdim=True).clamp(min=1e-30)
    numbers = (groups * (LARGEST / largest)).round()
    rounded: Tensor = (numbers * (largest / LARGEST)).flatten(-2)[..., : x.shape[-1]]
    return rounded


class RoundedOperators(Operators):
    """Torch's, of which linear layers have weights and inputs of 8 bits."""

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        """Return what `layer` with its weights rounded makes of `x` (..., C), rounded."""
        return rounded_linear(x, layer.weight, layer.bias)


def rounded_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `x` (..., C), rounded, times the rounded `weight` (R, C), plus `bias` (R,)."""
    scales, numbers = round_rows(weight)
    return F.linear(round_inputs(x), scales * numbers, bias)


def rounded_logits(model: GPT, idx: Tensor) -> Tensor:
    """Return the logits (B, T, V) of `model` with weights of 8 bits after `idx` (B, T)."""
    before = model.operators
    model.use(RoundedOperators())
    try:
        logits = rounded_linear(model.hidden(idx), model.head_weight)
    finally:
        model.use(before)
    return cap_logits(logits, float(model.config.logit_softcap or 0))
