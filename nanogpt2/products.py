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


class _Proposal(ctypes.Structure):
    _fields_ = (
        ("algorithm", c_uint64 * 8),
        ("workspace", c_size_t),
        ("status", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


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
            product = torch.addmm(bias, a, b)
        elif dtype == a.dtype:
            product = a @ b
        else:
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
        given = [a, b, out, *(x for x in (auxiliary, bias) if x is not None)]
        if self.library is None or not all(map(_fits, given)) or a.dtype == torch.float32:
            return False
        key = (epilogue, add, *((x.shape, x.stride(), x.dtype) for x in given))
        if key not in self.plans:
            self.plans[key] = _Plan(self, a, b, out, epilogue, auxiliary, bias, add=add)
        return self.plans[key].run(a, b, out, auxiliary, bias)


class _Plan:
    """How cuBLASLt computes products of one shape.

    Its matrices are stored by columns: it sees ours transposed, and the second before the first.
    """

    def __init__(
        self,
        products: Products,
        a: Tensor,
        b: Tensor,
        out: Tensor,
        epilogue: int,
        auxiliary: Tensor | None,
        bias: Tensor | None,
        *,
        add: bool,
    ) -> None:
        assert products.library is not None
        self.products, self.library = products, products.library
        self.description = c_void_p()
        _check(
            self.library.cublasLtMatmulDescCreate(
                byref(self.description), c_int(FLOAT32_SUMS), c_int(TYPES[torch.float32])
            )
        )
        self._set(TRANSPOSE_A, c_int32(b.stride(1) != 1))
        self._set(TRANSPOSE_B, c_int32(a.stride(1) != 1))
        self._set(EPILOGUE, c_int32(epilogue))
        if auxiliary is not None:
            self._set(AUXILIARY_STRIDE, c_int64(auxiliary.stride(0)))
        self._point(auxiliary, bias)
        self.layouts = [self._layout(x) for x in (b, a, out)]
        self.one, self.add = c_float(1.0), c_float(float(add))
        self.algorithms = self._propose()
        if len(self.algorithms) > 1 and not torch.cuda.is_current_stream_capturing():
            try:
                self.algorithms = [self._find_quickest(a, b, out, auxiliary, bias)]
            except torch.OutOfMemoryError:  # trying them takes more memory than the product
                del self.algorithms[1:]

    def _set(self, attribute: int, value: "ctypes._SimpleCData[int]") -> None:
        _check(
            self.library.cublasLtMatmulDescSetAttribute(
                self.description, c_int(attribute), byref(value), c_size_t(ctypes.sizeof(value))
            )
        )

    def _point(self, auxiliary: Tensor | None, bias: Tensor | None) -> None:
        if auxiliary is not None:
            self._set(AUXILIARY, c_uint64(auxiliary.data_ptr()))
        if bias is not None:
            self._set(BIAS, c_uint64(bias.data_ptr()))

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

    def _propose(self) -> "list[ctypes.Array[c_uint64]]":
        """Return the algorithms that cuBLASLt proposes, its favourite first."""
        preference, limit = c_void_p(), c_uint64(WORKSPACE)
        found, proposals = c_int(), (_Proposal * PROPOSALS)()
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
        return [proposal.algorithm for proposal in fit if proposal.status == 0]

    def _find_quickest(
        self, a: Tensor, b: Tensor, out: Tensor, auxiliary: Tensor | None, bias: Tensor | None
    ) -> "ctypes.Array[c_uint64]":
        """Return the quickest of those algorithms that find the same bits as most others do."""
        generator = torch.Generator(out.device).manual_seed(0)

        def draw(x: Tensor | None) -> Tensor | None:
            if x is None:
                return None
            return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device).normal_(
                generator=generator
            )

        a, b, auxiliary, bias = (draw(x) for x in (a, b, auxiliary, bias))  # type: ignore[assignment]
        groups: list[tuple[list[Tensor], list[ctypes.Array[c_uint64]]]] = []
        for algorithm in self.algorithms:
            out = torch.zeros_like(out)
            auxiliary = None if auxiliary is None else auxiliary.clone()
            self._launch(algorithm, a, b, out, auxiliary, bias)
            found = [x for x in (out, auxiliary) if x is not None]
            for others, alike in groups:
                if all(map(torch.equal, others, found)):
                    alike.append(algorithm)
                    break
            else:
                groups.append((found, [algorithm]))
        alike = max((alike for _, alike in groups), key=len)
        rounds = [
            [self._time(each, a, b, out, auxiliary, bias) for each in alike] for _ in range(ROUNDS)
        ]
        times = [statistics.median(each) for each in zip(*rounds, strict=True)]
        return alike[times.index(min(times))]

    def _time(self, algorithm: "ctypes.Array[c_uint64]", *matrices: Tensor | None) -> float:
        start, end = (
            torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            for _ in range(2)
        )
        start.record()
        for _ in range(TIMED_RUNS):
            self._launch(algorithm, *matrices)  # type: ignore[arg-type]
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    def run(
        self, a: Tensor, b: Tensor, out: Tensor, auxiliary: Tensor | None, bias: Tensor | None
    ) -> bool:
        """Compute `out`, or return False where there is no algorithm."""
        if self.algorithms:
            self._launch(self.algorithms[0], a, b, out, auxiliary, bias)
        return bool(self.algorithms)

    def _launch(
        self,
        algorithm: "ctypes.Array[c_uint64]",
        a: Tensor,
        b: Tensor,
        out: Tensor,
        auxiliary: Tensor | None,
        bias: Tensor | None,
    ) -> None:
        self._point(auxiliary, bias)
        b_layout, a_layout, out_layout = self.layouts
        target, workspace = c_void_p(out.data_ptr()), self.products.workspace
        _check(
            self.library.cublasLtMatmul(
                self.products.handle, self.description, byref(self.one),
                c_void_p(b.data_ptr()), b_layout, c_void_p(a.data_ptr()), a_layout,
                byref(self.add), target, out_layout, target, out_layout, byref(algorithm),
                c_void_p(workspace.data_ptr()), c_size_t(WORKSPACE),
                c_void_p(torch.cuda.current_stream(out.device).cuda_stream),
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
