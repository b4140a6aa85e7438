"""Operators that are wrong in one element: of what one of them gives, or of one gradient."""

from typing import Any

import torch
from torch import Tensor

from nanogpt2.model.operators import Operators


class _Spoil(torch.autograd.Function):
    """Gives its input, but for one element of it, or of its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: bool) -> Tensor:
        ctx.gradient = gradient
        return x.clone() if gradient else spoil(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        return spoil(dy) if ctx.gradient else dy, None


def spoil(x: Tensor) -> Tensor:
    """Return `x`, one element of it off by a tenth of the largest."""
    y = x.clone()
    last = y.select(-1, -1) if y.dim() else y  # a view, whatever the strides
    while last.dim():
        last = last.select(-1, last.shape[-1] // 2)
    last += 0.1 * x.abs().max() + 1e-9
    return y


def spoil_operator(operators: Operators, name: str, *, gradient: bool) -> None:
    """Make the operator `name` wrong in one element, or one element of a gradient."""
    right = getattr(operators, name)

    def wrong(first: Tensor, *args: Any, **options: Any) -> Any:
        if gradient:
            place = 1 if name == "embed" else 0  # tokens have no gradient
            given = [first, *args]
            given[place] = _Spoil.apply(given[place], True)  # type: ignore[no-untyped-call]
            return right(*given, **options)
        found = right(first, *args, **options)
        if isinstance(found, tuple):
            return (*found[:-1], _Spoil.apply(found[-1], False))  # type: ignore[no-untyped-call]
        return _Spoil.apply(found, False)  # type: ignore[no-untyped-call]

    setattr(operators, name, wrong)
