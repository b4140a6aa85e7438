"""Operators for training on a CPU, compiled from cpu.c by the C compiler of the machine."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.device import compiler as toolchain
from nanogpt2.kernels.cpu.library import DTYPES, Library
from nanogpt2.model.operators import (
    Operators,
    cap_logits,
    rows_of,
    sum_losses,
    with_rows,
    working_dtype,
)

SOURCE = Path(__file__).with_name("cpu.c")
LOGITS = 2**22  # of a float32 each, that exist at once: more are computed in parts


class CompiledOperators(Operators):
    """The operators from a compiled library, which knows one head size; others are torch's."""

    def __init__(self, library: Library) -> None:
        self.library = library
        self.next_seed = 0

    def __reduce__(self) -> tuple[type[Operators], tuple[()]]:
        return Operators, ()  # a copy of a model elsewhere does without the library

    def seed(self, seed: int) -> None:
        super().seed(seed)
        self.next_seed = seed

    def draw_seed(self) -> int:
        """Return the seed of one mask; the next call returns another."""
        self.next_seed = (self.next_seed + 0x9E3779B97F4A7C15) % (1 << 64)
        return self.next_seed

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, dropout: float) -> Tensor:
        if not fits(q, k, v):
            return super().attention(q, k, v, dropout=dropout)
        out: Tensor = _Attention.apply(self, q, k, v, dropout)  # type: ignore[no-untyped-call]
        return out

    def rotate(self, x: Tensor, angles: tuple[Tensor, Tensor], *, normed: bool) -> Tensor:
        if angles[0].dim() != 3 or not fits(x):  # positions that differ within the batch
            return super().rotate(x, angles, normed=normed)
        out: Tensor = _Rotate.apply(self, x, *angles, normed)  # type: ignore[no-untyped-call]
        return out

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if x.dtype != torch.float32 or not fits(x, weight):
            return super().rms_norm(x, weight, eps)
        out: Tensor = _RMSNorm.apply(self, x, weight, eps)  # type: ignore[no-untyped-call]
        return out

    def mix_tokens(self, x: Tensor, weight: Tensor) -> Tensor:
        if not fits(x) or not fits(weight) or weight.dtype != torch.float32:
            return super().mix_tokens(x, weight)
        out: Tensor = _MixTokens.apply(self, x, weight)  # type: ignore[no-untyped-call]
        return out

    def gelu(self, x: Tensor) -> Tensor:
        if not fits(x):
            return super().gelu(x)
        out: Tensor = _Gelu.apply(self, x)  # type: ignore[no-untyped-call]
        return out

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        if not rate or not fits(x):
            return super().dropout(x, rate)
        out: Tensor = _DropoutAdd.apply(self, None, x, rate)  # type: ignore[no-untyped-call]
        return out

    def add(self, x: Tensor, branch: Tensor, *, dropout: float) -> Tensor:
        if not dropout or x.dtype != torch.float32 or not fits(x) or not fits(branch):
            return super().add(x, branch, dropout=dropout)
        out: Tensor = _DropoutAdd.apply(self, x, branch, dropout)  # type: ignore[no-untyped-call]
        return out

    def cross_entropy(
        self, x: Tensor, weight: Tensor, targets: Tensor, *, softcap: float
    ) -> Tensor:
        if targets.numel() * len(weight) <= LOGITS or x.device.type != "cpu":
            return super().cross_entropy(x, weight, targets, softcap=softcap)
        loss: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
            rows_of(x), weight, targets.flatten(), softcap, torch.is_grad_enabled()
        )
        return loss


def fits(*tensors: Tensor) -> bool:
    """Return whether the kernels take `tensors`: on the CPU, all float32 or all bfloat16."""
    dtype = tensors[0].dtype
    return dtype in DTYPES and all(x.dtype == dtype and x.device.type == "cpu" for x in tensors)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, operators: CompiledOperators, q: Tensor, k: Tensor, v: Tensor, rate: float
    ) -> Tensor:
        q, k, v = map(with_rows, (q, k, v))
        ctx.operators, ctx.rate = operators, rate
        ctx.seed = operators.draw_seed() if rate else 0
        y, lse = operators.library.attention(q, k, v, rate, ctx.seed)
        ctx.save_for_backward(q, k, v, y, lse)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        library: Library = ctx.operators.library
        grads = library.attention_gradients(ctx.saved_tensors, with_rows(dy), ctx.rate, ctx.seed)
        return None, *grads, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, operators: CompiledOperators, x: Tensor, cos: Tensor, sin: Tensor, normed: bool
    ) -> Tensor:
        x = with_rows(x)
        ctx.operators, ctx.normed = operators, normed
        ctx.save_for_backward(x, cos, sin)
        return operators.library.rotate(x, cos, sin, normed)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dx = ctx.operators.library.rotate(*ctx.saved_tensors, ctx.normed, with_rows(dy))
        return None, dx, None, None, None


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, operators: CompiledOperators, x: Tensor, weight: Tensor, eps: float
    ) -> Tensor:
        x, weight = x.contiguous(), weight.contiguous()
        ctx.operators, ctx.eps = operators, eps
        ctx.save_for_backward(x, weight)
        # Where the product that follows would narrow it, it is narrow at once.
        mixed = working_dtype(x)
        return operators.library.rms_norm(x, weight, eps, mixed if mixed in DTYPES else x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        library: Library = ctx.operators.library
        dx, dweight = library.rms_norm_gradients(x, weight, dy.contiguous(), ctx.eps)
        return None, dx, dweight, None


class _MixTokens(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operators: CompiledOperators, x: Tensor, weight: Tensor) -> Tensor:
        ctx.library = operators.library
        ctx.save_for_backward(x := x.contiguous(), weight := weight.contiguous())
        return operators.library.mix_tokens(x, weight)[0]

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.library.mix_tokens(*ctx.saved_tensors, dy.contiguous())


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operators: CompiledOperators, x: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.operators = operators
        ctx.save_for_backward(x)
        return operators.library.gelu(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return None, ctx.operators.library.gelu(*ctx.saved_tensors, dy.contiguous())


class _DropoutAdd(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, operators: CompiledOperators, x: Tensor | None, branch: Tensor, rate: float
    ) -> Tensor:
        ctx.operators, ctx.rate, ctx.seed = operators, rate, operators.draw_seed()
        ctx.dtype, ctx.adds = branch.dtype, x is not None
        dtype = branch.dtype if x is None else x.dtype
        x = None if x is None else x.contiguous()
        return operators.library.dropout_add(x, branch.contiguous(), rate, ctx.seed, dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dbranch = ctx.operators.library.dropout_add(
            None, dy.contiguous(), ctx.rate, ctx.seed, ctx.dtype
        )
        return None, dy if ctx.adds else None, dbranch, None


class _CrossEntropy(torch.autograd.Function):
    """The head and the loss together, some rows at a time: gradients are taken at once."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, softcap: float, backward: bool
    ) -> Tensor:
        head, total = weight.to(x.dtype), x.new_zeros((), dtype=torch.float32)
        dx = torch.empty_like(x) if backward else None
        dhead = torch.zeros_like(weight, dtype=torch.float32) if backward else None
        with torch.autocast("cpu", enabled=False):
            for start in range(0, len(x), size := max(LOGITS // len(weight), 1)):
                rows, wanted = x[start : start + size], targets[start : start + size]
                raw = (rows @ head.t()).float()
                logits = cap_logits(raw, softcap)
                shares = F.log_softmax(logits, dim=1)
                total += sum_losses(shares, wanted)
                if dx is None or dhead is None:
                    continue
                shares.exp_()
                counts = (wanted >= 0)[:, None]
                shares.scatter_add_(1, wanted.clamp(min=0)[:, None], -counts.float())
                shares *= counts
                if softcap:
                    shares *= 1 - (logits / softcap).square_()
                narrow = shares.to(x.dtype)
                dx[start : start + size] = narrow @ head
                dhead += narrow.t() @ rows
        count = (targets >= 0).sum()
        ctx.save_for_backward(dx, dhead, count)
        return total / count

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        dx, dhead, count = ctx.saved_tensors
        factor = dloss / count
        return (dx * factor).to(dx.dtype), dhead * factor, None, None, None


def compile_operators(head_size: int) -> CompiledOperators:
    """Return the operators for heads of `head_size` channels, compiled now or at an earlier run.

    DeviceError says why there are none.
    """
    return CompiledOperators(Library(toolchain.load_library(SOURCE, HEAD_SIZE=head_size)))
