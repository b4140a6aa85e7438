"""What the code needs of torch that torch does not promise: its private names, all of them here.

A test of each holds it to what is relied on; torch 2.9 to 2.13 pass them.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Function = TypeVar("Function", bound=Callable[..., Any])

# Many tensors in a few kernels: updates of all weights would else launch one for each. The
# optimizers of torch are made of them.
foreach_add_ = torch._foreach_add_
foreach_copy_ = torch._foreach_copy_
foreach_div = torch._foreach_div
foreach_lerp = torch._foreach_lerp
foreach_lerp_ = torch._foreach_lerp_
foreach_mul_ = torch._foreach_mul_
foreach_sub = torch._foreach_sub


class Movable(nn.Module):
    """A module that is told when its own and its parts' weights went to another kind of device.

    `to`, `cpu` and `cuda`, also those of a module around it, all go through this private method.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Movable":
        before = self._kind_of_device()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._kind_of_device() != before:
            self.moved()
        return self

    def moved(self) -> None:
        """Do what a move asks for."""

    def _kind_of_device(self) -> str | None:
        return next((weight.device.type for weight in self.parameters()), None)


def unwrap(method: Function) -> Function:
    """Return an optimizer's method without what torch wraps it in.

    The wrappers import torch._dynamo, which takes a second or more and which nothing here needs.
    """
    plain: Function = inspect.unwrap(method)
    return plain


def scaled_mm(a: Tensor, b: Tensor, a_scale: Tensor, b_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `a` (M, K) @ `b` (K, N) of eight bits in `dtype`, times the scales (M, 1) and (1, N).

    The public torch.nn.functional.scaled_mm came with torch 2.10. Sums are rounded a little on the
    way, as hardware does it fastest.
    """
    return torch._scaled_mm(a, b, a_scale, b_scale, out_dtype=dtype, use_fast_accum=True)


def embedding_gradient(dx: Tensor, idx: Tensor, rows: int) -> Tensor:
    """Return the gradient (rows, C) of an embedding whose rows `idx` have the gradient `dx`.

    Without a graph to go through: the forward pass is a kernel of our own.
    """
    gradient: Tensor = torch.ops.aten.embedding_dense_backward(dx, idx, rows, -1, False)
    return gradient


def gelu_gradient(dy: Tensor, x: Tensor, out: Tensor) -> Tensor:
    """Write `dy` times the derivative of GELU's tanh form at `x` to `out`, and return it."""
    torch.ops.aten.gelu_backward.grad_input(dy, x, approximate="tanh", grad_input=out)
    return out


def cpu_has_bf16() -> bool:
    """Return whether the processor multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)


def leave_memory_unfilled() -> None:
    """Keep deterministic mode from filling all new memory with NaN, which takes time."""
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def renew_generator() -> None:
    """Free the GPU's generator from a capture that failed in the middle of using it.

    It gets the state of a new one, which belongs to no capture, and its seed back.
    """
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    seed = generator.initial_seed()
    generator.graphsafe_set_state(torch.Generator("cuda").graphsafe_get_state())
    generator.manual_seed(seed)
