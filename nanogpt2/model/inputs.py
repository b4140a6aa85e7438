"""What a model is given: tokens and targets of the right kind and shape, or one line about them."""

from typing import Any

import torch
from torch import Tensor

from nanogpt2.base.system.errors import DataError


def as_batch(idx: Any, *, block_size: int) -> Tensor:
    """Return tokens (B, T) as int64; DataError where they are none, or T exceeds `block_size`."""
    tokens = _as_integers("idx", idx)
    if tokens.dim() != 2 or not tokens.numel():
        raise DataError(
            f"idx: found the shape {tuple(tokens.shape)}; allowed: (B, T), at least 1 each"
        )
    if tokens.shape[1] > block_size:
        raise DataError(f"{tokens.shape[1]} tokens are more than block_size {block_size}")
    return tokens


def as_targets(targets: Any, idx: Tensor) -> Tensor:
    """Return `targets` as int64; DataError where they are none of tokens `idx`."""
    wanted = _as_integers("targets", targets)
    if wanted.shape != idx.shape:
        raise DataError(
            f"targets: found the shape {tuple(wanted.shape)}; allowed: {tuple(idx.shape)}, as idx"
        )
    return wanted


def _as_integers(name: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise DataError(f"{name}: found {type(value).__name__}; allowed: a tensor of integers")
    if value.dtype.is_floating_point or value.dtype.is_complex or value.dtype == torch.bool:
        raise DataError(f"{name}: found {value.dtype}; allowed: integers, such as torch.long")
    return value.long()


def outside(name: str, numbers: Tensor, allowed: str) -> DataError:
    """Return the error about numbers that have no row."""
    least, most = numbers.aminmax()
    return DataError(f"{name}: found from {int(least)} to {int(most)}; allowed: {allowed}")
