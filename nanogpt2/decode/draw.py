"""Controls of sampling, and the draw: one uniform number for each token of each sample.

top-p: Holtzman et al. 2019, "The Curious Case of Neural Text Degeneration"; min-p: Nguyen et al.
2024, "Turning Up the Heat"; repetition penalty: Keskar et al. 2019, "CTRL".
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanogpt2.base.system.errors import ConfigError

COLDEST = 1e-30  # as which a lower temperature counts, so that logits stay finite

# Of each control what fits, among finite numbers, and that in words.
RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (lambda value: value >= 0, "a finite number, at least 0"),
    "top_k": (
        lambda value: isinstance(value, Integral) and int(value) >= 0,
        "null or an integer, at least 0",
    ),
    "top_p": (lambda value: 0 < value <= 1, "null or above 0, at most 1"),
    "min_p": (lambda value: 0 <= value <= 1, "null or from 0 to 1"),
    "repetition_penalty": (lambda value: value > 0, "a finite number above 0"),
}


@dataclass(frozen=True)
class Controls:
    """How a token is drawn from logits; raises ConfigError where a value is out of range.

    The order is: repetition penalty, temperature, top-k, top-p, min-p.
    """

    temperature: float = 1.0  # 0 takes the most likely token
    top_k: int | None = None  # 0 keeps all, as None; so does more than the vocabulary has
    top_p: float | None = None
    min_p: float | None = None  # as a share of the most likely token's probability
    repetition_penalty: float = 1.0  # 1 is none

    def __post_init__(self) -> None:
        for name, (fits, allowed) in RANGES.items():
            value = getattr(self, name)
            if not (value is None and allowed.startswith("null")) and not _holds(fits, value):
                raise ConfigError(f"{name}: found {value}; allowed: {allowed}")
        object.__setattr__(self, "top_k", self.top_k or None)
        # so that no logit times or through it is infinite
        penalty = min(max(self.repetition_penalty, 1e-30), 1e30)
        object.__setattr__(self, "repetition_penalty", penalty)


def _holds(fits: Callable[[Any], bool], value: Any) -> bool:
    """Return whether `value` is a number, not an infinite one, and fits."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and bool(abs(value) <= sys.float_info.max) and fits(value)


def draw_uniforms(seeds: Sequence[int], count: int) -> Tensor:
    """Return numbers in [0, 1) for each seed: (B, count) float64.

    A row depends on its seed alone, and a longer row begins with a shorter one: Philox counts.
    """
    philox = np.random.Philox(key=0)
    generator, start = np.random.Generator(philox), philox.state
    uniforms = np.empty((len(seeds), count))
    for row, seed in zip(uniforms, seeds, strict=True):
        start["state"]["key"][0] = seed  # a generator for each takes four times as long
        philox.state = start
        generator.random(out=row)
    return torch.from_numpy(uniforms)


def place_uniforms(uniforms: Tensor, device: torch.device) -> Tensor:
    """Return `uniforms` on `device`: float64, or float32 on MPS, which has no wider numbers."""
    if device.type == "mps":
        uniforms = narrowed(uniforms)
    return uniforms.to(device)


def narrowed(uniforms: Tensor) -> Tensor:
    """Return `uniforms` in float32, in which none becomes 1: that would pick no token."""
    return uniforms.float().clamp(max=1 - torch.finfo(torch.float32).eps / 2)


def take_column(uniforms: Tensor, column: Tensor | None) -> Tensor:
    """Return the `column` (1,), else the first, of `uniforms` (B, N): (B, 1)."""
    return uniforms[:, :1] if column is None else uniforms.index_select(1, column)


def draw_tokens(
    logits: Tensor, uniforms: Tensor, controls: Controls, *,
    seen: Tensor | None = None, column: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return one token for each row of `logits` (B, V): (B,).

    The first, or the `column` (1,), of `uniforms` (B, N) picks the token: the first whose cumulated
    probability exceeds it. `seen` (B, V) is true for tokens that the repetition penalty makes less
    likely.
    """
    if seen is not None:
        logits = penalise(logits, seen, controls.repetition_penalty)
    if controls.temperature == 0:
        return logits.argmax(dim=-1)
    if controls.temperature != 1:
        # less the largest, so that the smallest temperature makes no infinity of it
        logits = (logits - logits.amax(dim=-1, keepdim=True)) / max(controls.temperature, COLDEST)
    probabilities = filter_probabilities(logits.softmax(dim=-1), controls)
    # in float64 the sum of 50,000 small numbers does not shift the draw; MPS has none
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    cumulated = probabilities.cumsum(dim=-1, dtype=wide)
    shares = take_column(uniforms, column).to(wide)
    drawn = torch.searchsorted(cumulated, shares * cumulated[:, -1:], right=True)
    return drawn[:, 0].clamp_(max=logits.shape[-1] - 1)


@dataclass(frozen=True)
class Drawn:
    """What was drawn of each row: tensors that are changed in place, which a CUDA graph can do."""

    tokens: Tensor  # (B,): the last ones
    positions: Tensor  # (B,): where these stand
    chunk: Tensor  # (B, N): those not yet handed out
    count: Tensor  # (1,): tokens drawn of each row
    chunk_count: Tensor  # (1,): those in `chunk`


def note_tokens(tokens: Tensor, drawn: Drawn) -> None:
    """Take note of `tokens` (B,), which follow the last ones."""
    drawn.tokens.copy_(tokens)
    drawn.chunk.index_copy_(1, drawn.chunk_count, tokens[:, None])
    for counted in (drawn.positions, drawn.count, drawn.chunk_count):
        counted += 1


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Return `logits` with those of `seen` tokens divided by `penalty`, or times it below 0."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def filter_probabilities(probabilities: Tensor, controls: Controls) -> Tensor:
    """Return `probabilities` (B, V) with what top-k, top-p and min-p drop set to 0."""
    V = probabilities.shape[-1]
    if controls.top_k is not None and controls.top_k < V:
        least = probabilities.topk(controls.top_k, dim=-1).values[:, -1:]
        probabilities = probabilities.masked_fill(probabilities < least, 0.0)
    if controls.top_p is not None and controls.top_p < 1:
        ranked, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ranked.cumsum(dim=-1) - ranked  # what more likely tokens hold
        dropped = before >= controls.top_p * ranked.sum(dim=-1, keepdim=True)
        dropped[:, 0] = False  # the most likely stays, also where top_p is too small a number
        dropped = torch.zeros_like(dropped).scatter(-1, order, dropped)
        probabilities = probabilities.masked_fill(dropped, 0.0)
    if controls.min_p:
        least = controls.min_p * probabilities.amax(dim=-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < least, 0.0)
    return probabilities


def draw_token(
    logits: Tensor, *, temperature: float, top_k: int | None, generator: torch.Generator | None
) -> Tensor:
    """Return one token for each row of `logits` (B, V), as torch draws it: (B, 1)."""
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    logits = logits / max(temperature, COLDEST)
    if top_k is not None:
        kept = logits.topk(min(top_k, logits.shape[-1]), dim=-1).values
        logits = logits.masked_fill(logits < kept[:, -1:], -math.inf)
    return torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
