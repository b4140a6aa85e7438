"""Rows of logits on a GPU, in one Triton kernel for each of what is made of them."""

import math

import torch
import triton
from torch import Tensor

from nanogpt2.kernels.gpu import FusedOperators
from nanogpt2.train.distil.gpu_kernels import add_probabilities_kernel, replace_by_gradient_kernel
from nanogpt2.train.distil.rows import Rows


class FusedRows(Rows):
    """The rows beside `operators`, whose products, copies of weights and share of memory serve."""

    def __init__(self, operators: FusedOperators) -> None:
        self.operators, self.multiply = operators, operators.products.multiply
        self.logits_bytes = operators.logits_bytes

    def cast(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        return self.operators.cast(weight, dtype)

    def add_probabilities(
        self, total: Tensor, logits: Tensor, softcap: float, temperature: float, *,
        share: float, add: bool,
    ) -> None:  # fmt: skip
        (R, n), width = total.shape, logits.shape[1]
        add_probabilities_kernel[R,](
            total, logits, n, width, math.log2(math.e) / temperature, share,
            CAP=softcap, ADD=add, **tile_of(n),
        )  # fmt: skip

    def replace_by_gradient(
        self, logits: Tensor, shares: Tensor, targets: Tensor, losses: Tensor, V: int,
        softcap: float, weight: float, temperature: float,
    ) -> None:  # fmt: skip
        R, width = logits.shape
        replace_by_gradient_kernel[R,](
            logits, shares, targets, losses, V, shares.shape[1], width, weight, temperature,
            CAP=softcap, TWO=temperature != 1, **tile_of(width),
        )  # fmt: skip


def tile_of(size: int) -> dict[str, int]:
    """Return the columns that a program works on at once, of `size` of a row, and its warps."""
    columns = min(4096, max(128, triton.next_power_of_2(size)))
    return {"COLUMNS": columns, "num_warps": max(1, columns // 512)}
