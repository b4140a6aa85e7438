"""Operators for training on a GPU: what torch does in several passes, in one Triton kernel.

Triton compiles a kernel when it is first called, in about a second, and keeps it on disk.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
import triton
from torch import Tensor, nn

from nanogpt2.device.memory import available_bytes
from nanogpt2.device.torch_private import embedding_gradient, foreach_copy_
from nanogpt2.kernels.cublaslt import Products, cast_bias, sum_rows
from nanogpt2.kernels.gpu_kernels import (
    add_norm_backward,
    add_norm_forward,
    cross_entropy_kernel,
    embed_kernel,
    rotate_kernel,
    scale_kernel,
)
from nanogpt2.model.operators import QK_EPS, Operators, rows_of, with_rows, working_dtype

TILE = 2048  # elements that a program of four warps works on at once
LOGITS_SHARE = 1 / 16  # of the device's memory, for logits that exist at once
PARTIAL_SUMS = 1024  # programs among which the gradient of a norm's weight is shared
PARTS_FROM = 2**23  # elements of a layer's input, from which its parts' gradients are not joined


class FusedOperators(Operators):
    """The operators on `device`, with `products` of matrices; those without a kernel are torch's.

    With `in_parts` the gradients of a split layer's parts are not joined.
    """

    def __init__(
        self, device: torch.device, products: Products | None = None, *, in_parts: bool = False
    ) -> None:
        self.products = products or Products(device)
        self.in_parts = in_parts
        self.next_seed = torch.zeros((), dtype=torch.int64, device=device)  # a CUDA graph reads it
        self.calls = 0
        self.logits_bytes = LOGITS_SHARE * available_bytes(device)
        self.ones = torch.ones(PARTIAL_SUMS, device=device)
        # copies of weights, by the id of each, within `cast_weights`
        self.copies: dict[int, Tensor] = {}

    def __reduce__(self) -> tuple[type[Operators], tuple[()]]:
        return Operators, ()  # a copy of a model elsewhere does without Triton

    def seed(self, seed: int) -> None:
        super().seed(seed)
        self.next_seed.fill_(seed)
        self.calls = 0

    def count_call(self) -> int:
        """Return the number of a mask since `seed`, from 1."""
        self.calls += 1
        return self.calls

    @contextmanager
    def cast_weights(self, weights: Iterable[Tensor], dtype: torch.dtype) -> Iterator[None]:
        wide = [weight for weight in weights if weight.dtype != dtype]
        copies = [torch.empty_like(weight, dtype=dtype) for weight in wide]
        if wide:
            with torch.no_grad():
                foreach_copy_(copies, wide)
        self.copies = dict(zip(map(id, wide), copies, strict=True))
        self.calls = 0  # a step that is tried again draws the same masks
        try:
            yield
        finally:
            self.copies = {}

    def cast(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Return `weight` in `dtype`: a copy that is there already, or a new one."""
        copy = self.copies.get(id(weight))
        return weight.to(dtype) if copy is None else copy

    def embed(self, idx: Tensor, tokens: Tensor, positions: Tensor | None) -> Tensor:
        if positions is None or positions.dim() == 3:
            return super().embed(idx, tokens, positions)
        x: Tensor = _Embed.apply(idx.contiguous(), tokens, positions)  # type: ignore[no-untyped-call]
        return x

    def add_norm(
        self, x: Tensor, branch: Tensor | None, norm: nn.Module, *, dropout: float
    ) -> tuple[Tensor, Tensor]:
        assert isinstance(norm, nn.LayerNorm | nn.RMSNorm)
        centred = isinstance(norm, nn.LayerNorm)
        bias = norm.bias if centred else None
        both: tuple[Tensor, Tensor] = _AddNorm.apply(  # type: ignore[no-untyped-call]
            self, x, branch, norm.weight, bias, float(norm.eps or 0), centred, dropout
        )  # fmt: skip
        return both

    def linear(self, x: Tensor, layer: nn.Linear) -> Tensor:
        return self._multiply(x, layer, [layer.out_features])[0]

    def split_linear(self, x: Tensor, layer: nn.Linear, widths: list[int]) -> tuple[Tensor, ...]:
        if not self.in_parts:
            return super().split_linear(x, layer, widths)
        return self._multiply(x, layer, widths)

    def _multiply(self, x: Tensor, layer: nn.Linear, widths: list[int]) -> tuple[Tensor, ...]:
        rows = rows_of(x)
        parts = _Linear.apply(self, rows, layer.weight, layer.bias, widths)  # type: ignore[no-untyped-call]
        return tuple(part.view(*x.shape[:-1], -1) for part in parts)

    def gelu_mlp(self, x: Tensor, first: nn.Linear, second: nn.Linear) -> Tensor:
        own = first.weight, first.bias, second.weight, second.bias
        y: Tensor = _GeluMLP.apply(self, rows_of(x), *own)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1)

    def rotate(self, x: Tensor, angles: tuple[Tensor, Tensor], *, normed: bool) -> Tensor:
        out: Tensor = _Rotate.apply(x, *angles, normed)  # type: ignore[no-untyped-call]
        return out

    def cross_entropy(
        self, x: Tensor, weight: Tensor, targets: Tensor, *, softcap: float
    ) -> Tensor:
        x, targets = x.flatten(0, -2), targets.flatten().contiguous()
        loss: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
            self, x.to(working_dtype(x)), weight, targets, softcap, torch.is_grad_enabled()
        )
        return loss


def tile_of(size: int) -> dict[str, int]:
    """Return the shape of a tile over rows of `size` elements."""
    columns = max(4, triton.next_power_of_2(size))
    return {"ROWS": max(1, TILE // columns), "COLUMNS": columns}


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, idx: Tensor, tokens: Tensor, positions: Tensor) -> Tensor:
        (B, T), (V, C) = idx.shape, tokens.shape
        tile = tile_of(C)
        x = tokens.new_empty(B, T, C)
        embed_kernel[triton.cdiv(B * T, tile["ROWS"]),](
            idx, tokens, positions.contiguous(), x, B * T, T, V, C=C, **tile
        )
        ctx.save_for_backward(idx)
        ctx.V = V
        return x

    @staticmethod
    def backward(ctx: Any, dx: Tensor) -> tuple[Tensor | None, ...]:
        (idx,) = ctx.saved_tensors
        return None, embedding_gradient(dx.contiguous(), idx, ctx.V), dx.sum(0)


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, operators: FusedOperators, x: Tensor, branch: Tensor | None, weight: Tensor,
        bias: Tensor | None, eps: float, centred: bool, rate: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        ctx.set_materialize_grads(False)
        x, C = x.contiguous(), x.shape[-1]
        rows, tile = x.numel() // C, tile_of(C)
        total = x if branch is None else torch.empty_like(x)
        y = torch.empty_like(x, dtype=working_dtype(x))
        mean, scale = x.new_empty(2, rows, dtype=torch.float32)
        drops = rate > 0 and branch is not None
        call = operators.count_call() if drops else 0
        add_norm_forward[triton.cdiv(rows, tile["ROWS"]),](
            x, None if branch is None else branch.contiguous(), weight, bias, total, y,
            mean, scale, operators.next_seed, rows, call, rate,
            C=C, EPS=eps, CENTRED=centred, DROPS=drops, **tile,
        )  # fmt: skip
        ctx.save_for_backward(total, weight, mean, scale)
        ctx.operators, ctx.call, ctx.rate, ctx.centred = operators, call, rate, centred
        ctx.branch_dtype = None if branch is None else branch.dtype
        ctx.has_bias = bias is not None
        return x.view_as(x) if branch is None else total, y

    @staticmethod
    def backward(ctx: Any, dsum: Tensor | None, dy: Tensor | None) -> tuple[Tensor | None, ...]:
        total, weight, mean, scale = ctx.saved_tensors
        dy = torch.zeros_like(total) if dy is None else dy
        C = total.shape[-1]
        rows, tile = total.numel() // C, tile_of(C) | {"ROWS": 4}
        tiles = triton.cdiv(rows, tile["ROWS"] * PARTIAL_SUMS)
        programs = triton.cdiv(rows, tile["ROWS"] * tiles)
        dx = torch.empty_like(total)
        dbranch = None
        if ctx.branch_dtype is not None:
            dbranch = torch.empty_like(total, dtype=ctx.branch_dtype)
        parts = mean.new_empty(1 + ctx.has_bias, programs, C)
        add_norm_backward[programs,](
            total, dy.contiguous(), None if dsum is None else dsum.contiguous(), weight,
            mean, scale, ctx.operators.next_seed, dx, dbranch,
            parts[0], parts[1] if ctx.has_bias else None, rows, tiles, ctx.call, ctx.rate,
            C=C, CENTRED=ctx.centred, DROPS=ctx.call > 0, **tile,
            num_warps=min(16, max(2, tile["COLUMNS"] // 256)),
        )  # fmt: skip
        ones = ctx.operators.ones[:programs]
        sums = [part.t() @ ones for part in parts]  # quicker than a sum over a long dimension
        return None, dx, dbranch, sums[0], sums[1] if ctx.has_bias else None, None, None, None


class _Linear(torch.autograd.Function):
    """Parts of what a layer makes of x (N, C).

    The gradient of the weight leaves its product in float32, as the optimizer wants it.
    """

    @staticmethod
    def forward(
        ctx: Any, operators: FusedOperators, x: Tensor, weight: Tensor, bias: Tensor | None,
        widths: list[int],
    ) -> tuple[Tensor, ...]:  # fmt: skip
        cast, multiply = operators.cast(weight, x.dtype), operators.products.multiply
        ctx.save_for_backward(x, cast)
        ctx.multiply, ctx.has_bias, ctx.widths = multiply, bias is not None, widths
        return torch.split(multiply(x, cast.t(), bias=cast_bias(bias, x)), widths, dim=1)

    @staticmethod
    def backward(ctx: Any, *dys: Tensor) -> tuple[Tensor | None, ...]:
        x, cast = ctx.saved_tensors
        dx, dweight = torch.empty_like(x), torch.empty_like(cast, dtype=torch.float32)
        parts = torch.split(cast, ctx.widths), torch.split(dweight, ctx.widths)
        dys = tuple(dy.contiguous() for dy in dys)
        for number, (dy, own, down) in enumerate(zip(dys, *parts, strict=True)):
            ctx.multiply(dy, own, out=dx, add=number > 0)
            ctx.multiply(dy.t(), x, out=down)
        dbias = torch.cat([sum_rows(dy) for dy in dys]) if ctx.has_bias else None
        return None, dx, dweight, dbias, None


class _GeluMLP(torch.autograd.Function):
    """Two linear layers; GELU between them, and its derivative, are part of their products."""

    @staticmethod
    def forward(
        ctx: Any, operators: FusedOperators, x: Tensor, first: Tensor, first_bias: Tensor | None,
        second: Tensor, second_bias: Tensor | None,
    ) -> Tensor:  # fmt: skip
        first, second = (operators.cast(weight, x.dtype) for weight in (first, second))
        active, inner = operators.products.gelu(x, first.t(), cast_bias(first_bias, x))
        ctx.save_for_backward(x, first, second, active, inner)
        ctx.products, ctx.has_bias = operators.products, first_bias is not None
        y: Tensor = ctx.products.multiply(active, second.t(), bias=cast_bias(second_bias, x))
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, first, second, active, inner = ctx.saved_tensors
        dy, multiply = dy.contiguous(), ctx.products.multiply
        dinner = ctx.products.gelu_gradient(dy, second, inner)
        dsecond = multiply(dy.t(), active, dtype=torch.float32)
        dfirst = multiply(dinner.t(), x, dtype=torch.float32)
        biases = [sum_rows(each) if ctx.has_bias else None for each in (dinner, dy)]
        return None, multiply(dinner, first), dfirst, biases[0], dsecond, biases[1]


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, normed: bool) -> Tensor:
        x, cos, sin = with_rows(x), cos.contiguous(), sin.contiguous()
        ctx.save_for_backward(x, cos, sin)
        ctx.normed = normed
        return rotate(x, cos, sin, None, normed)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, cos, sin = ctx.saved_tensors
        return rotate(x, cos, sin, with_rows(dy), ctx.normed), None, None, None


def rotate(x: Tensor, cos: Tensor, sin: Tensor, dy: Tensor | None, normed: bool) -> Tensor:
    """Return `x` (B, H, T, D) rotated; or, with `dy`, the gradient with respect to `x`."""
    B, H, T, D = x.shape
    out = x.new_empty(B, T, H, D)
    rows, tile = B * T * H, tile_of(D // 2)
    batch_angles = T * (D // 2) if cos.dim() == 4 and len(cos) > 1 else 0
    rotate_kernel[triton.cdiv(rows, tile["ROWS"]),](
        x, cos, sin, dy, out, *x.stride()[:3], *(x if dy is None else dy).stride()[:3],
        rows, H, T, batch_angles, QK_EPS, D=D, NORMED=normed, **tile,
    )  # fmt: skip
    return out.transpose(1, 2)


class _CrossEntropy(torch.autograd.Function):
    """The head and the loss together: their gradients are taken while the logits are there.

    The head gets rows of zeros up to a multiple of eight, as tensor cores want it.
    """

    @staticmethod
    def forward(
        ctx: Any, operators: FusedOperators, x: Tensor, weight: Tensor, targets: Tensor,
        softcap: float, backward: bool,
    ) -> Tensor:  # fmt: skip
        N, V, multiply = len(x), len(weight), operators.products.multiply
        head = operators.cast(weight, x.dtype)
        if V % 8:
            head = F.pad(head, (0, 0, 0, -V % 8))
        losses = x.new_empty(N, dtype=torch.float32)
        dx = torch.empty_like(x) if backward else None
        dhead = torch.empty_like(head, dtype=torch.float32) if backward else None
        columns = min(8192, max(128, triton.next_power_of_2(len(head))))
        parts = math.ceil(N * len(head) * x.element_size() / operators.logits_bytes)
        size = 128 * math.ceil(N / parts / 128)  # so that the parts are aligned
        for part in (slice(start, start + size) for start in range(0, N, size)):
            logits = multiply(x[part], head.t())
            cross_entropy_kernel[len(logits),](
                logits, targets[part], losses[part], V, len(head), CAP=softcap, BACKWARD=backward,
                COLUMNS=columns, num_warps=max(1, columns // 512),
            )  # fmt: skip
            if dx is not None:
                multiply(logits, head, out=dx[part])
                multiply(logits.t(), x[part], out=dhead, add=part.start > 0)
        count = (targets >= 0).sum()
        ctx.save_for_backward(dx, dhead, count)
        ctx.V = V
        return losses.sum() / count

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        dx, dhead, count = ctx.saved_tensors
        factor = dloss / count
        return None, scale(dx, factor), scale(dhead[: ctx.V], factor), None, None, None


def scale(x: Tensor, factor: Tensor) -> Tensor:
    """Return `x` times the one number of `factor`, a float32."""
    out = torch.empty_like(x)
    scale_kernel[triton.cdiv(x.numel(), TILE),](x, factor, out, x.numel(), SIZE=TILE)
    return out
