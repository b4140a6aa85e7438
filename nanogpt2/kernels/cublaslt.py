"""Matrix products on an NVIDIA GPU through cuBLASLt, with GELU in the same kernel.

Torch takes the first algorithm that cuBLASLt proposes for a shape; another is often quicker. Here
the proposed ones are tried on random numbers, once for each shape, and the quickest is taken of
the largest set that finds the same bits: so the choice changes nothing but the time. What cuBLASLt
does not take, torch multiplies.
"""

import ctypes
import statistics
import sys
from ctypes import byref, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

WORKSPACE = 2**26  # bytes
PROPOSALS = 16  # algorithms asked for; half as many come
ROUNDS, TIMED_RUNS = 3, 4  # of each algorithm, and in each round
ALIGNMENT = 256  # bytes, of every matrix, as cuBLASLt expects when it is told nothing else

# cuBLASLt's numbers, as cublasLt.h, cublas_api.h and library_types.h have them
TYPES = {torch.float32: 0, torch.float16: 2, torch.bfloat16: 14}
FLOAT32_SUMS = 68
TRANSPOSE_A, TRANSPOSE_B, EPILOGUE, BIAS, AUXILIARY, AUXILIARY_STRIDE = 3, 4, 7, 8, 11, 12
WORKSPACE_LIMIT = 1
PLAIN, ADD_BIAS, GELU, GELU_GRADIENT = 1, 4, 160, 192


class _Algorithm(ctypes.Structure):
    _fields_ = (
        ("data", c_uint64 * 8),
        ("workspace", c_size_t),
        ("status", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


class _Matrices(NamedTuple):
    """The arguments of one product."""

    a: Tensor
    b: Tensor
    out: Tensor
    auxiliary: Tensor | None
    bias: Tensor | None


class Products:
    """Products of matrices on `device`: (M, K) times (K, N), each of 16 bits or float32.

    Matrices may be transposed views. The tanh form of GELU is GPT-2's.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.library = _load_library() if device.type == "cuda" else None
        self.plans: dict[object, _Plan] = {}
        if self.library is not None:
            self.workspace = torch.empty(WORKSPACE, dtype=torch.uint8, device=device)
            self.handle = c_void_p()
            with torch.cuda.device(device):
                _check(self.library.cublasLtCreate(byref(self.handle)))

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
            dy = self.multiply(a, b)
            torch.ops.aten.gelu_backward.grad_input(dy, x, approximate="tanh", grad_input=out)
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
        matrices = _Matrices(a, b, out, auxiliary, bias)
        given = [x for x in matrices if x is not None]
        if self.library is None or not all(map(_fits, given)) or a.dtype == torch.float32:
            return False
        key = (epilogue, add, *((x.shape, x.stride(), x.dtype) for x in given))
        if key not in self.plans:
            self.plans[key] = _Plan(self, matrices, epilogue, add=add)
        return self.plans[key].run(matrices)


class _Plan:
    """How cuBLASLt computes products of one shape.

    Its matrices are stored by columns: it sees ours transposed, and the second before the first.
    """

    def __init__(
        self, products: Products, matrices: _Matrices, epilogue: int, *, add: bool
    ) -> None:
        assert products.library is not None
        self.products, self.library = products, products.library
        self.description = c_void_p()
        _check(
            self.library.cublasLtMatmulDescCreate(
                byref(self.description), c_int(FLOAT32_SUMS), c_int(TYPES[torch.float32])
            )
        )
        self._set(TRANSPOSE_A, c_int32(matrices.b.stride(1) != 1))
        self._set(TRANSPOSE_B, c_int32(matrices.a.stride(1) != 1))
        self._set(EPILOGUE, c_int32(epilogue))
        if matrices.auxiliary is not None:
            self._set(AUXILIARY_STRIDE, c_int64(matrices.auxiliary.stride(0)))
        self._point(matrices)
        self.layouts = [self._layout(x) for x in (matrices.b, matrices.a, matrices.out)]
        self.one, self.add = c_float(1.0), c_float(float(add))
        self.algorithms = self._propose()
        if len(self.algorithms) > 1 and not torch.cuda.is_current_stream_capturing():
            try:
                self.algorithms = [self._find_quickest(matrices)]
            except torch.OutOfMemoryError:  # trying them takes more memory than the product
                del self.algorithms[1:]

    def _set(self, attribute: int, value: "ctypes._SimpleCData[int]") -> None:
        _check(
            self.library.cublasLtMatmulDescSetAttribute(
                self.description, c_int(attribute), byref(value), c_size_t(ctypes.sizeof(value))
            )
        )

    def _point(self, matrices: _Matrices) -> None:
        if matrices.auxiliary is not None:
            self._set(AUXILIARY, c_uint64(matrices.auxiliary.data_ptr()))
        if matrices.bias is not None:
            self._set(BIAS, c_uint64(matrices.bias.data_ptr()))

    def _layout(self, x: Tensor) -> c_void_p:
        layout, stored = c_void_p(), x if x.stride(1) == 1 else x.t()
        rows, columns = stored.shape
        _check(
            self.library.cublasLtMatrixLayoutCreate(
                byref(layout), c_int(TYPES[x.dtype]), c_uint64(columns), c_uint64(rows),
                c_int64(stored.stride(0)),
            )
        )  # fmt: skip
        return layout

    def _propose(self) -> list[_Algorithm]:
        """Return the algorithms that cuBLASLt proposes, its favourite first."""
        preference, limit = c_void_p(), c_uint64(WORKSPACE)
        found, proposals = c_int(), (_Algorithm * PROPOSALS)()
        b, a, out = self.layouts
        _check(self.library.cublasLtMatmulPreferenceCreate(byref(preference)))
        try:
            _check(
                self.library.cublasLtMatmulPreferenceSetAttribute(
                    preference, c_int(WORKSPACE_LIMIT), byref(limit), c_size_t(8)
                )
            )
            status = self.library.cublasLtMatmulAlgoGetHeuristic(
                self.products.handle, self.description, b, a, out, out, preference,
                c_int(PROPOSALS), proposals, byref(found),
            )  # fmt: skip
        finally:
            self.library.cublasLtMatmulPreferenceDestroy(preference)
        fit = proposals[: 0 if status else found.value]
        return [proposal for proposal in fit if proposal.status == 0]

    def _find_quickest(self, matrices: _Matrices) -> _Algorithm:
        """Return the quickest of those algorithms that find the same bits as most others do."""
        generator = torch.Generator(matrices.out.device).manual_seed(0)

        def draw(x: Tensor) -> Tensor:
            like = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
            return like.normal_(generator=generator)

        drawn = _Matrices(*(x if x is None or x is matrices.out else draw(x) for x in matrices))  # type: ignore[arg-type]
        groups: list[tuple[list[Tensor], list[_Algorithm]]] = []
        for algorithm in self.algorithms:
            auxiliary = None if drawn.auxiliary is None else drawn.auxiliary.clone()
            drawn = drawn._replace(out=torch.zeros_like(drawn.out), auxiliary=auxiliary)
            self._launch(algorithm, drawn)
            found = [x for x in (drawn.out, auxiliary) if x is not None]
            for others, alike in groups:
                if all(map(torch.equal, others, found)):
                    alike.append(algorithm)
                    break
            else:
                groups.append((found, [algorithm]))
        alike = max((alike for _, alike in groups), key=len)
        rounds = [[self._time(each, drawn) for each in alike] for _ in range(ROUNDS)]
        times = [statistics.median(each) for each in zip(*rounds, strict=True)]
        return alike[times.index(min(times))]

    def _time(self, algorithm: _Algorithm, matrices: _Matrices) -> float:
        start, end = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        start.record()
        for _ in range(TIMED_RUNS):
            self._launch(algorithm, matrices)
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def run(self, matrices: _Matrices) -> bool:
        """Compute the product, or return False where there is no algorithm."""
        if self.algorithms:
            self._launch(self.algorithms[0], matrices)
        return bool(self.algorithms)

    def _launch(self, algorithm: _Algorithm, matrices: _Matrices) -> None:
        self._point(matrices)
        b_layout, a_layout, out_layout = self.layouts
        a, b, out, workspace = (
            c_void_p(x.data_ptr()) for x in (*matrices[:3], self.products.workspace)
        )
        stream = torch.cuda.current_stream(matrices.out.device).cuda_stream
        _check(
            self.library.cublasLtMatmul(
                self.products.handle, self.description, byref(self.one), b, b_layout, a, a_layout,
                byref(self.add), out, out_layout, out, out_layout, byref(algorithm.data),
                workspace, c_size_t(algorithm.workspace), c_void_p(stream),
            )
        )  # fmt: skip


def narrow_bias(bias: Tensor | None, x: Tensor) -> Tensor | None:
    """Return `bias` in the dtype of `x`."""
    return None if bias is None else bias.to(x.dtype)


def sum_rows(dy: Tensor) -> Tensor:
    """Return the gradient of a bias that was added to each row."""
    return dy.sum(0, dtype=torch.float32)


def _fits(x: Tensor) -> bool:
    """Return whether cuBLASLt takes the matrix, or the bias, `x`."""
    if x.dtype not in TYPES or x.data_ptr() % ALIGNMENT or any(size % 8 for size in x.shape):
        return False
    strides = sorted(x.stride())
    return strides[0] == 1 and not any(stride % 8 for stride in strides[1:])


def _load_library() -> ctypes.CDLL | None:
    """Return the cuBLASLt that torch has loaded."""
    version = (torch.version.cuda or "").partition(".")[0]
    windows = sys.platform == "win32"
    try:
        return ctypes.CDLL(f"cublasLt64_{version}.dll" if windows else f"libcublasLt.so.{version}")
    except OSError:
        return None


def _check(status: int) -> None:
    if status:
        raise RuntimeError(f"cuBLASLt failed with status {status}")
