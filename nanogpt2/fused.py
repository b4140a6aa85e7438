"""Operators for training on a GPU: what torch does in several passes, in one Triton kernel.

Triton compiles a kernel when it is first called, in about a second, and keeps it on disk.
"""

import math
from typing import Any

import torch
import triton
from torch import Tensor, nn

from nanogpt2.errors import DeviceError
from nanogpt2.fused_kernels import (
    add_norm_backward,
    add_norm_forward,
    cross_entropy_kernel,
    narrow_rows_kernel,
    rotate_kernel,
)
from nanogpt2.operators import QK_EPS, TORCH, Operators, with_rows

TILE = 2048  # elements that a program of four warps works on at once
LOGITS_BYTES = 2**31  # of logits that exist at once
PARTIAL_SUMS = 1024  # programs among which the gradient of a norm's weight is shared


class FusedOperators(Operators):
    """The operators on `device`; those that have no kernel are torch's.

    With `fp8` the products of linear layers, but for the gradient of their weights, are of eight
    bits, with a scale for each row (Micikevicius et al. 2022, "FP8 formats for deep learning").
    """

    def __init__(self, device: torch.device, *, fp8: bool = False) -> None:
        self.fp8 = fp8
        self.next_seed = torch.zeros((), dtype=torch.int64, device=device)  # a CUDA graph reads it
        self.calls = 0

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
        weight = layer.weight
        fp8 = self.fp8 and all(size % 16 == 0 for size in weight.shape)
        rows = x.to(working_dtype(x)).flatten(0, -2)
        y: Tensor = _Linear.apply(rows, weight, layer.bias, fp8)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1)

    def rotate(self, x: Tensor, angles: tuple[Tensor, Tensor], *, normed: bool) -> Tensor:
        out: Tensor = _Rotate.apply(x, *angles, normed)  # type: ignore[no-untyped-call]
        return out

    def cross_entropy(
        self, x: Tensor, weight: Tensor, targets: Tensor, *, softcap: float
    ) -> Tensor:
        x, targets = x.flatten(0, -2), targets.flatten().contiguous()
        loss: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
            x.to(working_dtype(x)), weight, targets, softcap, torch.is_grad_enabled()
        )
        return loss


def working_dtype(x: Tensor) -> torch.dtype:
    """Return what matrix products of `x` compute in: autocast's dtype, or its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def tile_of(size: int) -> dict[str, int]:
    """Return the shape of a tile over rows of `size` elements."""
    columns = max(4, triton.next_power_of_2(size))
    return {"ROWS": max(1, TILE // columns), "COLUMNS": columns}


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
        rows, tile = total.numel() // C, tile_of(C)
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
            C=C, CENTRED=ctx.centred, DROPS=ctx.call > 0, **tile, num_warps=2,
        )  # fmt: skip
        sums = parts.sum(1)
        return None, dx, dbranch, sums[0], sums[1] if ctx.has_bias else None, None, None, None


class _Linear(torch.autograd.Function):
    """The gradient of the weight leaves its product in float32, as the optimizer wants it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, fp8: bool) -> Tensor:
        narrow = weight.to(x.dtype)
        ctx.save_for_backward(x, narrow)
        ctx.fp8, ctx.has_bias = fp8, bias is not None
        if fp8:
            y = product_fp8(x, narrow)
            return y if bias is None else y + bias.to(y.dtype)
        return x @ narrow.t() if bias is None else torch.addmm(bias.to(x.dtype), x, narrow.t())

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, narrow = ctx.saved_tensors
        dy = dy.contiguous()
        dx = product_fp8(dy, narrow.t().contiguous()) if ctx.fp8 else dy @ narrow
        dbias = dy.sum(0, dtype=torch.float32) if ctx.has_bias else None
        return dx, add_product(None, dy.t(), x), dbias, None


def product_fp8(a: Tensor, b: Tensor) -> Tensor:
    """Return `a` (M, K) @ `b` (N, K) transposed, from eight bits, in the dtype of `a`."""
    (a8, a_scale), (b8, b_scale) = narrow_rows(a), narrow_rows(b)
    return torch._scaled_mm(
        a8, b8.t(), a_scale, b_scale.t(), out_dtype=a.dtype, use_fast_accum=True
    )


def narrow_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `x` (rows, C) in eight bits, and the scale (rows, 1) that each row is divided by."""
    rows, C = x.shape
    out = torch.empty_like(x, dtype=torch.float8_e4m3fn)
    scale = x.new_empty(rows, 1, dtype=torch.float32)
    columns = triton.next_power_of_2(C)
    narrow_rows_kernel[rows,](
        x, out, scale, C, HIGHEST=torch.finfo(torch.float8_e4m3fn).max, COLUMNS=columns,
        num_warps=max(1, min(16, columns // 256)),
    )  # fmt: skip
    return out, scale


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
    """The head and the loss together: their gradients are taken while the logits are there."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, softcap: float, backward: bool
    ) -> Tensor:
        narrow = weight.to(x.dtype)
        N, V = len(x), len(weight)
        losses = x.new_empty(N, dtype=torch.float32)
        dx = torch.empty_like(x) if backward else None
        dweight = None
        columns = min(4096, triton.next_power_of_2(V))
        parts = math.ceil(N * V * x.element_size() / LOGITS_BYTES)
        for rows in torch.arange(N).chunk(parts):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            logits = x[part] @ narrow.t()
            cross_entropy_kernel[len(logits),](
                logits, targets[part], losses[part], V, CAP=softcap, BACKWARD=backward,
                COLUMNS=columns, num_warps=max(1, columns // 512),
            )  # fmt: skip
            if dx is not None:
                torch.mm(logits, narrow, out=dx[part])
                dweight = add_product(dweight, logits.t(), x[part])
        count = (targets >= 0).sum()
        ctx.save_for_backward(dx, dweight, count)
        return losses.sum() / count

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        dx, dweight, count = ctx.saved_tensors
        factor = dloss / count
        return dx * factor, dweight * factor, None, None, None


def add_product(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """Return `total` + `a` @ `b` in float32."""
    if a.device.type != "cuda" or a.dtype == torch.float32:
        product = (a @ b).float()
    else:
        product = torch.mm(a, b, out_dtype=torch.float32)
    return product if total is None else total.add_(product)


def fuse_operators(device: torch.device, width: int, *, fp8: bool) -> FusedOperators:
    """Return the operators for `width` channels; DeviceError says why there are none."""
    operators = FusedOperators(device, fp8=fp8)
    x, norm = torch.ones(2, width, device=device), nn.LayerNorm(width, bias=False, device=device)
    try:
        found = operators.add_norm(x, x, norm, dropout=0.0)
    except Exception as error:  # Triton's and its C compiler's are of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DeviceError(f"Triton's kernels do not work here: {reason}") from error
    if not torch.equal(found[0], TORCH.add_norm(x, x, norm, dropout=0.0)[0]):
        raise DeviceError("Triton's kernels compute something else here than torch")
    return operators
