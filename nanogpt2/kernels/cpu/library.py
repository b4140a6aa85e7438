"""The functions of cpu.c over tensors: what a function is given is what it was written for."""

import ctypes
from ctypes import POINTER, c_float, c_int, c_int64, c_uint64, c_void_p
from typing import Any

import torch
from torch import Tensor

from nanogpt2.model.operators import QK_EPS


class Heads(ctypes.Structure):
    """A tensor (B, heads, T, D) as cpu.c sees it: its data, and its strides but the last."""

    _fields_ = (("data", c_void_p), ("batch", c_int64), ("head", c_int64), ("token", c_int64))


class Memory(ctypes.Structure):
    """What each thread of a kernel may use, as cpu.c sees it."""

    _fields_ = (("scratch", c_void_p), ("each", c_int64), ("threads", c_int))


HEADS, DATA = POINTER(Heads), c_void_p
SHAPE = c_int, c_int, c_int, c_int  # B, H, G, T
# What each function takes and returns, as cpu.c has it.
SIGNATURES: dict[str, tuple[tuple[Any, ...], Any]] = {
    "attention_forward": ((*[HEADS] * 4, DATA, *SHAPE, c_int, c_float, c_uint64, Memory), None),
    "attention_backward": (
        (*[HEADS] * 5, DATA, *[HEADS] * 3, *SHAPE, c_int, c_float, c_uint64, Memory), None,
    ),
    "rotate_forward": ((HEADS, DATA, DATA, HEADS, *[c_int] * 5, c_float), None),
    "rotate_backward": ((HEADS, DATA, DATA, HEADS, HEADS, *[c_int] * 5, c_float), None),
    "rms_norm_forward": ((DATA, DATA, DATA, c_int64, c_int, c_int, c_float, Memory), None),
    "rms_norm_backward": ((*[DATA] * 5, c_int64, c_int, c_int, c_float, Memory), None),
    "mix_forward": ((*[DATA] * 3, c_int64, *[c_int] * 4, Memory), None),
    "mix_backward": ((*[DATA] * 5, c_int64, *[c_int] * 4, Memory), None),
    "gelu_forward": ((DATA, DATA, c_int64, c_int), None),
    "gelu_backward": ((DATA, DATA, DATA, c_int64, c_int), None),
    "dropout_add": ((DATA, DATA, DATA, c_int64, c_int, c_int, c_float, c_uint64), None),
    "head_size": ((), c_int),
    "attention_forward_floats": ((c_int,), c_int64),
    "attention_backward_floats": ((c_int,), c_int64),
    "row_blocks": ((c_int64,), c_int64),
}  # fmt: skip
DTYPES = torch.float32, torch.bfloat16


class Library:
    """cpu.c compiled for one head size. ValueError where a tensor is none that it takes."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, (arguments, result) in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, result
        self.c = library
        self.head_size: int = library.head_size()
        self.scratch = torch.empty(0)

    def memory(self, each: int) -> Memory:
        """Return memory of `each` floats for every thread; it lasts until the next call."""
        threads = torch.get_num_threads()
        if self.scratch.numel() < threads * each:
            self.scratch = torch.empty(threads * each)
        return Memory(self.scratch.data_ptr(), each, threads)

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, rate: float, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return causal attention (B, H, T, D), and what its gradient needs: (B, H, T)."""
        shape = self._check_attention(q, k, v)
        B, H, _, T = shape
        y = q.new_empty(B, T, H, self.head_size).transpose(1, 2)
        lse = torch.empty(B, H, T)
        memory = self.memory(self.c.attention_forward_floats(T))
        self.c.attention_forward(
            *map(heads, (q, k, v, y)), lse.data_ptr(), *shape, is_bf16(q), rate, seed, memory
        )
        return y, lse

    def attention_gradients(
        self, saved: tuple[Tensor, ...], dy: Tensor, rate: float, seed: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of q, k and v; `saved` are they and what `attention` returned."""
        q, k, v, y, lse = saved
        shape = self._check_attention(q, k, v)
        B, H, G, T = shape
        self._check_heads(q, y, dy)
        require_shape(q.shape, y, dy)
        require_plain(torch.float32, (B, H, T), lse)
        whole = q.new_empty(B, T, H + 2 * G, self.head_size)  # as c_attn: no copy joins them
        dq, dk, dv = (x.transpose(1, 2) for x in torch.split(whole, [H, G, G], dim=2))
        memory = self.memory(self.c.attention_backward_floats(T))
        self.c.attention_backward(
            *map(heads, (q, k, v, y, dy)), lse.data_ptr(), *map(heads, (dq, dk, dv)),
            *shape, is_bf16(q), rate, seed, memory,
        )  # fmt: skip
        return dq, dk, dv

    def _check_attention(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[int, int, int, int]:
        """Return (B, H, G, T) of tensors that attention takes."""
        self._check_heads(q, k, v)
        (B, H, T, D), G = q.shape, k.shape[1]
        require_shape((B, G, T, D), k, v)
        require(G > 0 and H % G == 0, f"{H} heads of queries for {G} of keys")
        return B, H, G, T

    def _check_heads(self, *tensors: Tensor) -> None:
        """Require tensors (B, heads, T, D) of one dtype, whose channels lie side by side."""
        D = self.head_size
        require_readable(tensors[0].dtype, *tensors)
        for x in tensors:
            found = f"{tuple(x.shape)} with strides {x.stride()}"
            side_by_side = x.dim() == 4 and (D == 1 or x.stride(3) == 1)
            require(side_by_side and x.shape[3] == D, f"{found} for heads of {D} channels")

    def rotate(
        self, x: Tensor, cos: Tensor, sin: Tensor, normed: bool, dy: Tensor | None = None
    ) -> Tensor:
        """Return `x` turned, and normed; or with `dy` the gradient of `x`."""
        self._check_heads(x)
        B, H, T, D = x.shape
        require(D % 2 == 0, f"pairs of {D} channels")
        require_plain(torch.float32, (1, T, D // 2), cos, sin)
        out = x.new_empty(B, T, H, D).transpose(1, 2)
        angles, sizes = (cos.data_ptr(), sin.data_ptr()), (B, H, T, is_bf16(x), normed, QK_EPS)
        if dy is None:
            self.c.rotate_forward(heads(x), *angles, heads(out), *sizes)
        else:
            self._check_heads(x, dy)
            require_shape(x.shape, dy)
            self.c.rotate_backward(heads(x), *angles, heads(dy), heads(out), *sizes)
        return out

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        """Return `x` (..., C) normed, in `dtype`."""
        C, y = len(weight), torch.empty_like(x, dtype=dtype)
        require_plain(torch.float32, (*x.shape[:-1], C), x)
        require_plain(torch.float32, (C,), weight)
        self.c.rms_norm_forward(
            *addresses(x, weight, y), x.numel() // C, C, is_bf16(y), eps, self.memory(C)
        )
        return y

    def rms_norm_gradients(
        self, x: Tensor, weight: Tensor, dy: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of `x` and `weight`."""
        C, rows = len(weight), x.numel() // len(weight)
        require_plain(torch.float32, (*x.shape[:-1], C), x)
        require_plain(torch.float32, (C,), weight)
        require_plain(dy.dtype, x.shape, dy)
        dx, sums = torch.empty_like(x), torch.empty(self.c.row_blocks(rows), C)
        self.c.rms_norm_backward(
            *addresses(x, weight, dy, dx, sums), rows, C, is_bf16(dy), eps, self.memory(C)
        )
        return dx, sums.sum(0)

    def mix_tokens(self, x: Tensor, weight: Tensor, dy: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return (`x` (B, T, C) mixed by `weight` (k, 1, C),), or with `dy` both gradients."""
        (B, T, C), k, out = x.shape, len(weight), torch.empty_like(x)
        require_plain(torch.float32, (k, 1, C), weight)
        require_plain(x.dtype, x.shape, x, x if dy is None else dy)
        sizes = B * T, T, C, k, is_bf16(x), self.memory(2 * C)
        if dy is None:
            self.c.mix_forward(*addresses(x, weight, out), *sizes)
            return (out,)
        sums = torch.empty(self.c.row_blocks(B * T), k, 1, C)
        self.c.mix_backward(*addresses(x, weight, dy, out, sums), *sizes)
        return out, sums.sum(0)

    def gelu(self, x: Tensor, dy: Tensor | None = None) -> Tensor:
        """Return GELU of `x`, or with `dy` the gradient of `x`."""
        require_plain(x.dtype, x.shape, x)
        out = torch.empty_like(x)
        if dy is None:
            self.c.gelu_forward(*addresses(x, out), x.numel(), is_bf16(x))
        else:
            require_plain(x.dtype, x.shape, dy)
            self.c.gelu_backward(*addresses(x, dy, out), x.numel(), is_bf16(x))
        return out

    def dropout_add(
        self, x: Tensor | None, branch: Tensor, rate: float, seed: int, dtype: torch.dtype
    ) -> Tensor:
        """Return dropout of `branch` in `dtype`, added to `x` where it is there."""
        y = torch.empty_like(branch, dtype=dtype)
        require_plain(branch.dtype, branch.shape, branch)
        if x is not None:
            require_plain(torch.float32, branch.shape, x)
            require(dtype == torch.float32, f"a sum in {dtype}")
        self.c.dropout_add(
            None if x is None else x.data_ptr(), *addresses(branch, y), y.numel(),
            is_bf16(branch), is_bf16(y), rate, seed,
        )  # fmt: skip
        return y


def require(holds: bool, found: str) -> None:
    """Raise ValueError where what was found does not hold."""
    if not holds:
        raise ValueError(f"cpu.c: found {found}")


def require_shape(shape: tuple[int, ...], *tensors: Tensor) -> None:
    """Require tensors of `shape`."""
    for x in tensors:
        require(x.shape == shape, f"{tuple(x.shape)} where {tuple(shape)} is right")


def require_readable(dtype: torch.dtype, *tensors: Tensor) -> None:
    """Require tensors of `dtype`, float32 or bfloat16, on the CPU."""
    for x in tensors:
        require(x.dtype == dtype and dtype in DTYPES, f"{x.dtype} beside {dtype}")
        require(x.device.type == "cpu", f"a tensor on {x.device}")


def require_plain(dtype: torch.dtype, shape: tuple[int, ...], *tensors: Tensor) -> None:
    """Require contiguous tensors of `dtype` and `shape`."""
    require_readable(dtype, *tensors)
    require_shape(shape, *tensors)
    for x in tensors:
        require(x.is_contiguous(), f"strides {x.stride()} of {tuple(x.shape)}")


def heads(x: Tensor) -> Any:
    """Return a reference to `x` (B, heads, T, D), whose last stride is 1."""
    return ctypes.byref(Heads(x.data_ptr(), *x.stride()[:3]))


def addresses(*tensors: Tensor) -> list[int]:
    """Return where the tensors' elements lie."""
    return [x.data_ptr() for x in tensors]


def is_bf16(x: Tensor) -> int:
    """Return 1 for bfloat16 and 0 for float32."""
    return int(x.dtype == torch.bfloat16)
