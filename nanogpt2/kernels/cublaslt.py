"""Products of matrices on a GPU, with GELU in the same kernel where cuBLASLt does it.

A kind of product is compared with torch's before any of it is used. Other kinds, and what cuBLASLt
does not take, torch multiplies.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.device import cublaslt
from nanogpt2.device.cublaslt import ADD_BIAS, GELU, GELU_GRADIENT, PLAIN, Kind, Matrices, Plan
from nanogpt2.device.torch_private import gelu_gradient
from nanogpt2.kernels.checks.check import find_fault
from nanogpt2.kernels.checks.samples import Pair


class Products:
    """Products of matrices on `device`: (M, K) times (K, N), each of 16 bits or float32.

    Matrices may be transposed views. The tanh form of GELU is GPT-2's. Without a `library`, and
    until `vet`, all are torch's.
    """

    def __init__(self, device: torch.device, library: Any = None) -> None:
        self.device, self.library = device, library
        self.vetted: set[Kind] = set()
        self.tried: set[Kind] | None = None  # while kinds are being tried
        self.plans: dict[object, Plan] = {}
        if library is not None:
            self.workspace = torch.empty(cublaslt.WORKSPACE, dtype=torch.uint8, device=device)
            with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                self.handle = cublaslt.make(library, cublaslt.free_with(self, library), "")

    def vet(self, dtype: torch.dtype, *, say: Callable[[str], None]) -> None:
        """Allow each kind of product of `dtype` that computes what torch's does.

        `say` gets a line for each that does not.
        """
        for name, use in USES.items() if self.library is not None else ():
            self.tried = set()
            fault = find_fault(lambda: _compare(self, use, dtype))  # noqa: B023
            if fault is None:
                self.vetted |= self.tried
            else:
                say(f"note: cuBLASLt's {name}: {fault}: torch's serves in its place")
        self.tried = None

    def multiply(
        self,
        a: Tensor,
        b: Tensor,
        *,
        bias: Tensor | None = None,
        dtype: torch.dtype | None = None,
        out: Tensor | None = None,
        add: bool = False,
    ) -> Tensor:
        """Return `a` @ `b` (+ `bias`) in `dtype` or its own; in `out`, or added to it by `add`."""
        dtype = out.dtype if out is not None else dtype or a.dtype
        target = a.new_empty(len(a), b.shape[1], dtype=dtype) if out is None else out
        epilogue = PLAIN if bias is None else ADD_BIAS
        if self._run(a, b, target, epilogue, bias=bias, add=add):
            return target
        if bias is not None:
            return torch.addmm(bias, a, b, out=target)
        if dtype == a.dtype:
            return target.addmm_(a, b) if add else torch.mm(a, b, out=target)
        product = torch.mm(a, b, out_dtype=dtype) if a.is_cuda else (a @ b).to(dtype)
        if out is None:
            return product
        return out.add_(product) if add else out.copy_(product)

    def gelu(self, a: Tensor, b: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return GELU(`a` @ `b` + `bias`), and its argument."""
        out, argument = (a.new_empty(len(a), b.shape[1]) for _ in range(2))
        epilogue = GELU if bias is None else GELU | ADD_BIAS
        if self._run(a, b, out, epilogue, auxiliary=argument, bias=bias):
            return out, argument
        argument = self.multiply(a, b, bias=bias)
        return F.gelu(argument, approximate="tanh"), argument

    def gelu_gradient(self, a: Tensor, b: Tensor, x: Tensor) -> Tensor:
        """Return `a` @ `b` times the derivative of GELU at `x` (M, N)."""
        out = torch.empty_like(x)
        if not self._run(a, b, out, GELU_GRADIENT, auxiliary=x):
            gelu_gradient(self.multiply(a, b), x, out)
        return out

    def _run(
        self,
        a: Tensor,
        b: Tensor,
        out: Tensor,
        epilogue: int,
        *,
        auxiliary: Tensor | None = None,
        bias: Tensor | None = None,
        add: bool = False,
    ) -> bool:
        """Compute `out`, or return False where cuBLASLt does not take such matrices."""
        matrices = Matrices(a, b, out, auxiliary, bias)
        given = [x for x in matrices if x is not None]
        taken = a.dtype != torch.float32 and all(map(cublaslt.fits, given))
        if self.library is None or not taken:
            return False
        transposed = cublaslt.by_columns(a), cublaslt.by_columns(b)
        kind = Kind(epilogue, add, transposed, (a.dtype, out.dtype))
        if self.tried is not None:
            self.tried.add(kind)
        elif kind not in self.vetted:
            return False
        key = (kind, *((x.shape, x.stride()) for x in given))
        if key not in self.plans:
            self.plans[key] = Plan(self.library, self.handle, matrices, kind)
        return self.plans[key].run(matrices, self.workspace)


class _Sample(NamedTuple):
    """Matrices of one layer: several tiles of a kernel, and a part of one."""

    x: Tensor  # (M, K)
    weight: Tensor  # (N, K)
    bias: Tensor  # (N,)
    dy: Tensor  # (M, N)


# Each kind of product that training uses, once.
USES: dict[str, Callable[[Products, _Sample], tuple[Tensor, ...]]] = {
    "product": lambda own, s: (own.multiply(s.x, s.weight.t()),),
    "product with a bias": lambda own, s: (own.multiply(s.x, s.weight.t(), bias=s.bias),),
    "gradient": lambda own, s: (own.multiply(s.dy, s.weight),),
    "gradient, added": lambda own, s: (own.multiply(s.dy, s.weight, out=s.x.clone(), add=True),),
    "gradient of a weight": lambda own, s: (own.multiply(s.dy.t(), s.x, dtype=torch.float32),),
    "gradient of a weight, added": lambda own, s: (
        own.multiply(s.dy.t(), s.x, out=s.weight.float().clone(), add=True),
    ),
    "product with GELU": lambda own, s: own.gelu(s.x, s.weight.t(), None),
    "product with a bias and GELU": lambda own, s: own.gelu(s.x, s.weight.t(), s.bias),
    "gradient of GELU": lambda own, s: (own.gelu_gradient(s.dy, s.weight, s.x),),
}
SIZES = 328, 200, 136  # M, K, N
# Of a number, as a share of the largest, in the units in which it is stored: of parts of sums too.
ROUNDINGS = 4


def _compare(
    own: Products, use: Callable[[Products, _Sample], tuple[Tensor, ...]], dtype: torch.dtype
) -> Iterator[Pair]:
    """Yield what `use` makes with `own` products, and with torch's in float32."""
    generator = torch.Generator(own.device).manual_seed(1)
    M, K, N = SIZES
    shapes = (M, K), (N, K), (N,), (M, N)
    drawn = [torch.randn(shape, generator=generator, device=own.device) for shape in shapes]
    drawn[1] /= K**0.5
    cast = _Sample(*(x.to(dtype) for x in drawn))
    wide = _Sample(*(x.float() for x in cast))
    tolerance = ROUNDINGS * torch.finfo(dtype).eps
    for found, right in zip(use(own, cast), use(Products(own.device), wide), strict=True):
        yield found, right, tolerance


def cast_bias(bias: Tensor | None, x: Tensor) -> Tensor | None:
    """Return `bias` in the dtype of `x`."""
    return None if bias is None else bias.to(x.dtype)


def sum_rows(dy: Tensor) -> Tensor:
    """Return the gradient of a bias that was added to each row."""
    return dy.sum(0, dtype=torch.float32)
