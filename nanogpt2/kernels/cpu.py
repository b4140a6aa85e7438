"""Operators for training on a CPU, compiled from cpu.c by the C compiler of the machine."""

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanogpt2.base.errors import DeviceError
from nanogpt2.device import compiler as toolchain
from nanogpt2.model.operators import QK_EPS, TORCH, Operators, with_rows

SOURCE = Path(__file__).with_name("cpu.c")
NORM_ROWS = 64  # ROWS in cpu.c


class Heads(ctypes.Structure):
    """A tensor (B, heads, T, D) as cpu.c sees it: its data, and its strides but the last."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("head", ctypes.c_int64),
        ("token", ctypes.c_int64),
    )


class Memory(ctypes.Structure):
    """What each thread of a kernel may use, as cpu.c sees it."""

    _fields_ = (
        ("scratch", ctypes.c_void_p),
        ("each", ctypes.c_int64),
        ("threads", ctypes.c_int),
    )


def heads(x: Tensor) -> Any:
    """Return a reference to `x` (B, heads, T, D), whose last stride is 1."""
    return ctypes.byref(Heads(x.data_ptr(), *x.stride()[:3]))


class CompiledOperators(Operators):
    """The operators from a compiled library, which knows one head size; others are torch's."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.next_seed = 0
        self.scratch = torch.empty(0)

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

    # --- The library's functions, over tensors ---

    def memory(self, each: int) -> Memory:
        """Return memory of `each` floats for every thread; it lasts until the next call."""
        threads = torch.get_num_threads()
        if self.scratch.numel() < threads * each:
            self.scratch = torch.empty(threads * each)
        return Memory(self.scratch.data_ptr(), each, threads)

    def attention_forward(
        self, q: Tensor, k: Tensor, v: Tensor, rate: float, seed: int
    ) -> tuple[Tensor, Tensor]:
        B, H, T, D = q.shape
        y = q.new_empty(B, T, H, D).transpose(1, 2)
        lse = torch.empty(B, H, T)
        self.library.attention_forward(
            heads(q), heads(k), heads(v), heads(y), pointer(lse),
            B, H, k.shape[1], T, is_bf16(q), ctypes.c_float(rate), ctypes.c_uint64(seed),
            self.memory(6 * attention_floats(q)),
        )  # fmt: skip
        return y, lse

    def attention_backward(
        self, saved: tuple[Tensor, ...], dy: Tensor, rate: float, seed: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, y, lse = saved
        B, H, T, D = q.shape
        G = k.shape[1]
        whole = q.new_empty(B, T, H + 2 * G, D)  # as c_attn lays them out: no copy joins them
        dq, dk, dv = (x.transpose(1, 2) for x in torch.split(whole, [H, G, G], dim=2))
        self.library.attention_backward(
            heads(q), heads(k), heads(v), heads(y), heads(dy), pointer(lse),
            heads(dq), heads(dk), heads(dv),
            B, H, G, T, is_bf16(q), ctypes.c_float(rate), ctypes.c_uint64(seed),
            self.memory(12 * attention_floats(q)),
        )  # fmt: skip
        return dq, dk, dv

    def rotate_with(
        self, name: str, tensors: tuple[Tensor, ...], angles: tuple[Tensor, Tensor], normed: bool
    ) -> Tensor:
        """Call rotate_forward of x, or rotate_backward of x and dy."""
        x = tensors[0]
        B, H, T, D = x.shape
        out = x.new_empty(B, T, H, D).transpose(1, 2)
        getattr(self.library, name)(
            heads(x), *map(pointer, angles), *map(heads, tensors[1:]), heads(out),
            B, H, T, is_bf16(x), int(normed), ctypes.c_float(QK_EPS),
        )  # fmt: skip
        return out

    def dropout_add(
        self, x: Tensor | None, branch: Tensor, rate: float, seed: int, dtype: torch.dtype
    ) -> Tensor:
        y = torch.empty_like(branch, dtype=dtype)
        self.library.dropout_add(
            None if x is None else pointer(x), pointer(branch), pointer(y),
            ctypes.c_int64(y.numel()), is_bf16(branch), is_bf16(y),
            ctypes.c_float(rate), ctypes.c_uint64(seed),
        )  # fmt: skip
        return y


def fits(*tensors: Tensor) -> bool:
    """Return whether the kernels take `tensors`: on the CPU, all float32 or all bfloat16."""
    dtype = tensors[0].dtype
    return dtype in (torch.float32, torch.bfloat16) and all(
        x.dtype == dtype and x.device.type == "cpu" for x in tensors
    )


def attention_floats(q: Tensor) -> int:
    """Return the floats of the largest block that attention over `q` (B, H, T, D) keeps."""
    T, D = (-(-size // 16) * 16 for size in q.shape[2:])  # LANES and QUERIES in cpu.c
    return T * max(D, 16)


def pointer(x: Tensor) -> ctypes.c_void_p:
    """Return the address of a contiguous tensor."""
    return ctypes.c_void_p(x.data_ptr())


def is_bf16(x: Tensor) -> int:
    """Return 1 for bfloat16 and 0 for float32."""
    return int(x.dtype == torch.bfloat16)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, operators: CompiledOperators, q: Tensor, k: Tensor, v: Tensor, rate: float
    ) -> Tensor:
        q, k, v = map(with_rows, (q, k, v))
        ctx.operators, ctx.rate = operators, rate
        ctx.seed = operators.draw_seed() if rate else 0
        y, lse = operators.attention_forward(q, k, v, rate, ctx.seed)
        ctx.save_for_backward(q, k, v, y, lse)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dy = with_rows(dy)
        grads = ctx.operators.attention_backward(ctx.saved_tensors, dy, ctx.rate, ctx.seed)
        return None, *grads, None


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        operators: CompiledOperators,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        normed: bool,
    ) -> Tensor:
        x = with_rows(x)
        ctx.operators, ctx.normed = operators, normed
        ctx.save_for_backward(x, cos, sin)
        return operators.rotate_with("rotate_forward", (x,), (cos, sin), normed)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, *angles = ctx.saved_tensors
        dy = with_rows(dy)
        dx = ctx.operators.rotate_with("rotate_backward", (x, dy), angles, ctx.normed)
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
        mixed = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu")
        y = torch.empty_like(x, dtype=mixed if mixed == torch.bfloat16 else torch.float32)
        rows, size = ctypes.c_int64(x.numel() // len(weight)), len(weight)
        operators.library.rms_norm_forward(
            pointer(x), pointer(weight), pointer(y), rows, size, is_bf16(y), ctypes.c_float(eps),
            operators.memory(size),
        )  # fmt: skip
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows, size, dy = x.numel() // len(weight), len(weight), dy.contiguous()
        dx, sums = torch.empty_like(x), torch.empty(-(-rows // NORM_ROWS), size)
        ctx.operators.library.rms_norm_backward(
            pointer(x), pointer(weight), pointer(dy), pointer(dx), pointer(sums),
            ctypes.c_int64(rows), size, is_bf16(dy), ctypes.c_float(ctx.eps),
            ctx.operators.memory(size),
        )  # fmt: skip
        return None, dx, sums.sum(0), None


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, operators: CompiledOperators, x: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.operators = operators
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        operators.library.gelu_forward(
            pointer(x), pointer(y), ctypes.c_int64(x.numel()), is_bf16(x)
        )
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        dx, dy = torch.empty_like(x), dy.contiguous()
        ctx.operators.library.gelu_backward(
            pointer(x), pointer(dy), pointer(dx), ctypes.c_int64(x.numel()), is_bf16(x)
        )
        return None, dx


class _DropoutAdd(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, operators: CompiledOperators, x: Tensor | None, branch: Tensor, rate: float
    ) -> Tensor:
        ctx.operators, ctx.rate, ctx.seed = operators, rate, operators.draw_seed()
        ctx.dtype, ctx.adds = branch.dtype, x is not None
        dtype = branch.dtype if x is None else x.dtype
        x = None if x is None else x.contiguous()
        return operators.dropout_add(x, branch.contiguous(), rate, ctx.seed, dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dbranch = ctx.operators.dropout_add(None, dy.contiguous(), ctx.rate, ctx.seed, ctx.dtype)
        return None, dy if ctx.adds else None, dbranch, None


def compile_operators(head_size: int) -> CompiledOperators:
    """Return the operators for heads of `head_size` channels, compiled now or at an earlier run.

    DeviceError says why there are none.
    """
    operators = CompiledOperators(toolchain.load_library(SOURCE, HEAD_SIZE=head_size))
    _check(operators, head_size)
    return operators


def _check(operators: CompiledOperators, head_size: int) -> None:
    """Raise DeviceError where the library's attention is not torch's, on a small example."""
    generator = torch.Generator().manual_seed(1)
    q, k, v = torch.randn(3, 1, 2, 40, head_size, generator=generator)
    y, _ = operators.attention_forward(q, k, v, 0.0, 0)
    if not torch.allclose(y, TORCH.attention(q, k, v, dropout=0.0), atol=1e-4):
        name = toolchain.name_of(SOURCE)
        raise DeviceError(f"{name}: compiled here, it computes something else than torch")
