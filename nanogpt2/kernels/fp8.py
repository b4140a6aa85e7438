"""Linear layers whose products are of eight bits, but for the gradients of their weights.

The format is e4m3 (Micikevicius et al. 2022, "FP8 formats for deep learning"); each row of a
matrix is divided by a scale of its own, and a weight by one, so that it can be transposed.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch
import triton
from torch import Tensor, nn

from nanogpt2.device.torch_private import scaled_mm
from nanogpt2.kernels.cublaslt import Products, sum_rows
from nanogpt2.kernels.gpu import FusedOperators
from nanogpt2.kernels.gpu_kernels import (
    gelu_quantize_kernel,
    quantize_rows_kernel,
    quantize_weight_kernel,
)
from nanogpt2.model.operators import rows_of

E4M3 = torch.float8_e4m3fn
HIGHEST = torch.finfo(E4M3).max
WEIGHT_TILE = 64
# How far results may be from those of exact products, as a share of the largest: each factor has
# four digits, so that a sum is off by a twentieth of its usual size, and a few by several times it.
TOLERANCES = {"linear": 0.15, "split_linear": 0.15, "gelu_mlp": 0.25}


class Quantized(NamedTuple):
    """A matrix (rows, C) in eight bits, and the scale (rows, 1) that each row was divided by."""

    values: Tensor
    scale: Tensor


Weight: TypeAlias = tuple[Quantized, Quantized]  # (N, K), and its transpose


class EightBitOperators(FusedOperators):
    """The operators of a GPU, with products of eight bits where sizes allow it."""

    def __init__(self, device: torch.device, products: Products | None = None) -> None:
        super().__init__(device, products)  # parts would have to be quantized one by one
        # copies of weights in eight bits, by the id of each, within `cast_weights`
        self.copies8: dict[int, Weight] | None = None

    @contextmanager
    def cast_weights(self, weights: Iterable[Tensor], dtype: torch.dtype) -> Iterator[None]:
        with super().cast_weights(weights, dtype):
            self.copies8 = {} if self.copies else None
            try:
                yield
            finally:
                self.copies8 = None

    def quantize(self, weight: Tensor) -> Weight:
        """Return `weight` in eight bits: a copy that is there already, or a new one."""
        copies = {} if self.copies8 is None else self.copies8
        if id(weight) not in copies:
            copies[id(weight)] = quantize_weight(self.copies.get(id(weight), weight))
        return copies[id(weight)]

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        if not takes(layer.weight):
            return super().linear(x, layer)
        own = layer.weight, layer.bias
        y: Tensor = Linear.apply(self.products, self.quantize, rows_of(x), *own)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1)

    def gelu_mlp(self, x: Tensor, first: nn.Linear, second: nn.Linear) -> Tensor:
        if not (takes(first.weight) and takes(second.weight)):
            return super().gelu_mlp(x, first, second)
        own = first.weight, first.bias, second.weight, second.bias
        y: Tensor = GeluMLP.apply(self.products, self.quantize, rows_of(x), *own)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1)


def takes(weight: Tensor) -> bool:
    """Return whether products of eight bits are possible with `weight`."""
    return all(size % 16 == 0 for size in weight.shape)


def room_for(x: Tensor) -> Quantized:
    """Return memory for `x` (rows, C) in eight bits."""
    values = torch.empty(x.shape, dtype=E4M3, device=x.device)
    return Quantized(values, x.new_empty(len(x), 1, dtype=torch.float32))


def quantize_rows(x: Tensor) -> Quantized:
    """Return `x` (rows, C) in eight bits."""
    (rows, C), out = x.shape, room_for(x)
    quantize_rows_kernel[rows,](x, *out, C, HIGHEST=HIGHEST, **_row_of(C))
    return out


def quantize_weight(weight: Tensor) -> Weight:
    """Return `weight` (N, K) in eight bits, and so its transpose."""
    highest = torch.linalg.vector_norm(weight, float("inf"))
    return _quantize_evenly(weight, highest), _quantize_evenly(weight.t(), highest)


def _quantize_evenly(x: Tensor, highest: Tensor) -> Quantized:
    """Return `x` (rows, C), all divided by one scale."""
    (rows, C), out = x.shape, room_for(x)
    grid = triton.cdiv(rows, WEIGHT_TILE), triton.cdiv(C, WEIGHT_TILE)
    quantize_weight_kernel[grid](
        x, highest, out.values.view(torch.uint8), out.scale, rows, C, *x.stride(),
        HIGHEST=HIGHEST, TILE=WEIGHT_TILE,
    )  # fmt: skip
    return out


def gelu(x: Tensor, dy: Tensor | None = None) -> tuple[Tensor, Quantized]:
    """Return GELU(`x`) of `x` (rows, C), or with `dy` the gradient; also in eight bits."""
    (rows, C), y, quantized = x.shape, torch.empty_like(x), room_for(x)
    gelu_quantize_kernel[rows,](x, dy, y, *quantized, C, HIGHEST=HIGHEST, **_row_of(C))
    return y, quantized


def _row_of(C: int) -> dict[str, int]:
    """Return the shape of a program for a row of `C` elements."""
    columns = triton.next_power_of_2(C)
    return {"COLUMNS": columns, "num_warps": max(1, min(16, columns // 256))}


def multiply(a: Quantized, b: Quantized, dtype: torch.dtype) -> Tensor:
    """Return `a` (M, K) @ `b` (N, K) transposed in `dtype`."""
    return scaled_mm(a.values, b.values.t(), a.scale, b.scale.t(), dtype)


def add_bias(y: Tensor, bias: Tensor | None) -> Tensor:
    """Return `y` (rows, N), and `bias` (N,) added to it."""
    return y if bias is None else y.add_(bias.to(y.dtype))


class Linear(torch.autograd.Function):
    """A linear layer; `find` returns its weight in eight bits."""

    @staticmethod
    def forward(
        ctx: Any, products: Products, find: Callable[[Tensor], Weight], x: Tensor,
        weight: Tensor, bias: Tensor | None,
    ) -> Tensor:  # fmt: skip
        plain, transposed = find(weight)
        ctx.save_for_backward(x, *transposed)
        ctx.products, ctx.has_bias = products, bias is not None
        return add_bias(multiply(quantize_rows(x), plain, x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, *transposed = ctx.saved_tensors
        dy = dy.contiguous()
        dx = multiply(quantize_rows(dy), Quantized(*transposed), x.dtype)
        dweight = ctx.products.multiply(dy.t(), x, dtype=torch.float32)
        return None, None, dx, dweight, sum_rows(dy) if ctx.has_bias else None


class GeluMLP(torch.autograd.Function):
    """Two linear layers, and GELU between them, whose results are quantized as they are made."""

    @staticmethod
    def forward(
        ctx: Any, products: Products, find: Callable[[Tensor], Weight], x: Tensor,
        first: Tensor, first_bias: Tensor | None, second: Tensor, second_bias: Tensor | None,
    ) -> Tensor:  # fmt: skip
        (first8, first_t), (second8, second_t) = find(first), find(second)
        inner = add_bias(multiply(quantize_rows(x), first8, x.dtype), first_bias)
        active, quantized = gelu(inner)
        ctx.save_for_backward(x, inner, active, *first_t, *second_t)
        ctx.products, ctx.has_bias = products, first_bias is not None
        return add_bias(multiply(quantized, second8, x.dtype), second_bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, inner, active, *weights = ctx.saved_tensors
        first_t, second_t = Quantized(*weights[:2]), Quantized(*weights[2:])
        dy, exactly = dy.contiguous(), ctx.products.multiply
        dinner, quantized = gelu(inner, multiply(quantize_rows(dy), second_t, x.dtype))
        dsecond = exactly(dy.t(), active, dtype=torch.float32)
        dfirst = exactly(dinner.t(), x, dtype=torch.float32)
        biases = [sum_rows(each) if ctx.has_bias else None for each in (dinner, dy)]
        dx = multiply(quantized, first_t, x.dtype)
        return None, None, dx, dfirst, biases[0], dsecond, biases[1]
