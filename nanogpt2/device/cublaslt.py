"""One product of matrices through the cuBLASLt that torch has loaded.

It is the first algorithm that cuBLASLt proposes for a shape, as in torch: what it computes depends
on nothing but the device and the versions.
"""

import ctypes
import sys
import weakref
from ctypes import byref, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from nanogpt2.base.system.errors import DeviceError

# The versions whose numbers these are, 10000 major + 100 minor + patch: cublasLt.h, cublas_api.h
# and library_types.h of CUDA 12 and 13, with which torch 2.9 and newer come. Older ones lack some,
# and what later ones will change is not known.
FIRST_VERSION, UNKNOWN_VERSION = 120_000, 140_000
TYPES = {torch.float32: 0, torch.float16: 2, torch.bfloat16: 14}
FLOAT32_SUMS = 68
TRANSPOSE_A, TRANSPOSE_B, EPILOGUE, BIAS, AUXILIARY, AUXILIARY_STRIDE = 3, 4, 7, 8, 11, 12
WORKSPACE_LIMIT = 1
PLAIN, ADD_BIAS, GELU, GELU_GRADIENT = 1, 4, 160, 192

WORKSPACE = 2**26  # bytes
ALIGNMENT = 256  # bytes, of every matrix, as cuBLASLt expects when it is told nothing else

# What each function takes; all but cublasLtGetVersion return a status.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "Create": (c_void_p,),
    "Destroy": (c_void_p,),
    "GetVersion": (),
    "MatmulDescCreate": (c_void_p, c_int, c_int),
    "MatmulDescSetAttribute": (c_void_p, c_int, c_void_p, c_size_t),
    "MatmulDescDestroy": (c_void_p,),
    "MatrixLayoutCreate": (c_void_p, c_int, c_uint64, c_uint64, c_int64),
    "MatrixLayoutDestroy": (c_void_p,),
    "MatmulPreferenceCreate": (c_void_p,),
    "MatmulPreferenceSetAttribute": (c_void_p, c_int, c_void_p, c_size_t),
    "MatmulPreferenceDestroy": (c_void_p,),
    "MatmulAlgoGetHeuristic": (*[c_void_p] * 7, c_int, c_void_p, c_void_p),
    # handle, description, alpha, a, b, beta, c, out and their layouts, algorithm, workspace
    "Matmul": (*[c_void_p] * 14, c_size_t, c_void_p),
}

Made: TypeAlias = list[tuple[str, c_void_p]]
"""Objects of cuBLASLt's, each with what its functions are named by: "MatmulDesc"; handles by ""."""


class Algorithm(ctypes.Structure):
    """A proposal of cuBLASLt's, and the bytes of workspace that it needs."""

    _fields_ = (
        ("data", c_uint64 * 8),
        ("workspace", c_size_t),
        ("status", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


class Matrices(NamedTuple):
    """The arguments of one product."""

    a: Tensor
    b: Tensor
    out: Tensor
    auxiliary: Tensor | None
    bias: Tensor | None


class Kind(NamedTuple):
    """What tells products apart beside their sizes."""

    epilogue: int
    add: bool
    transposed: tuple[bool, bool]
    dtypes: tuple[torch.dtype, torch.dtype]


class Plan:
    """How cuBLASLt computes products of one shape.

    Its matrices are stored by columns: it sees ours transposed, and the second before the first.
    Nothing here depends on a value or touches the device, so that it may be done in a capture.
    """

    def __init__(self, library: Any, handle: c_void_p, matrices: Matrices, kind: Kind) -> None:
        self.library, self.handle = library, handle
        self.made = free_with(self, library)
        types = FLOAT32_SUMS, TYPES[torch.float32]
        self.description = make(library, self.made, "MatmulDesc", *types)
        self._set(TRANSPOSE_A, c_int32(kind.transposed[1]))
        self._set(TRANSPOSE_B, c_int32(kind.transposed[0]))
        self._set(EPILOGUE, c_int32(kind.epilogue))
        if matrices.auxiliary is not None:
            self._set(AUXILIARY_STRIDE, c_int64(matrices.auxiliary.stride(0)))
        self._point(matrices)
        self.layouts = [self._layout(x) for x in (matrices.b, matrices.a, matrices.out)]
        self.one, self.add = c_float(1.0), c_float(float(kind.add))
        self.algorithm = self._propose()

    def _set(self, attribute: int, value: Any) -> None:
        given = attribute, byref(value), ctypes.sizeof(value)
        check(self.library.cublasLtMatmulDescSetAttribute(self.description, *given))

    def _point(self, matrices: Matrices) -> None:
        if matrices.auxiliary is not None:
            self._set(AUXILIARY, c_uint64(matrices.auxiliary.data_ptr()))
        if matrices.bias is not None:
            self._set(BIAS, c_uint64(matrices.bias.data_ptr()))

    def _layout(self, x: Tensor) -> c_void_p:
        stored = x.t() if by_columns(x) else x
        sizes = stored.shape[1], stored.shape[0], stored.stride(0)
        return make(self.library, self.made, "MatrixLayout", TYPES[x.dtype], *sizes)

    def _propose(self) -> Algorithm | None:
        """Return the algorithm that cuBLASLt proposes first, where there is one."""
        preference = make(self.library, self.made, "MatmulPreference")
        limit, count, proposal = c_uint64(WORKSPACE), c_int(), Algorithm()
        given = WORKSPACE_LIMIT, byref(limit), ctypes.sizeof(limit)
        check(self.library.cublasLtMatmulPreferenceSetAttribute(preference, *given))
        b, a, out = self.layouts
        status = self.library.cublasLtMatmulAlgoGetHeuristic(
            self.handle, self.description, b, a, out, out, preference,
            1, byref(proposal), byref(count),
        )  # fmt: skip
        return None if status or not count.value or proposal.status else proposal

    def run(self, matrices: Matrices, workspace: Tensor) -> bool:
        """Compute the product, or return False where there is no algorithm."""
        if self.algorithm is None:
            return False
        self._point(matrices)
        b_layout, a_layout, out_layout = self.layouts
        a, b, out = (x.data_ptr() for x in matrices[:3])
        on_gpu, device = matrices.out.is_cuda, matrices.out.device
        stream = torch.cuda.current_stream(device).cuda_stream if on_gpu else None
        status = self.library.cublasLtMatmul(
            self.handle, self.description, byref(self.one), b, b_layout, a, a_layout,
            byref(self.add), out, out_layout, out, out_layout, byref(self.algorithm),
            workspace.data_ptr(), self.algorithm.workspace, stream,
        )  # fmt: skip
        check(status)
        return True


def load_library() -> ctypes.CDLL:
    """Return the library that torch has loaded; DeviceError where there is none to rely on."""
    major = (torch.version.cuda or "").partition(".")[0]
    windows = sys.platform == "win32"
    name = f"cublasLt64_{major}.dll" if windows else f"libcublasLt.so.{major}"
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise DeviceError(f"cuBLASLt: {name} is not there") from error
    for function, arguments in ARGUMENTS.items():
        getattr(library, f"cublasLt{function}").argtypes = arguments
    library.cublasLtGetVersion.restype = c_size_t
    check_version(library)
    return library


def check_version(library: Any) -> None:
    """Raise DeviceError where `library` may have other numbers than these."""
    version = library.cublasLtGetVersion()
    if not FIRST_VERSION <= version < UNKNOWN_VERSION:
        raise DeviceError(f"cuBLASLt: found version {version}; known are 12 and 13")


def make(library: Any, made: Made, what: str, *arguments: int) -> c_void_p:
    """Return a new object of the kind `what`, and add it to what was `made`."""
    new = c_void_p()
    check(getattr(library, f"cublasLt{what}Create")(byref(new), *arguments))
    made.append((what, new))
    return new


def free_with(owner: object, library: Any) -> Made:
    """Return an empty list: what will be made in it is freed when `owner` goes.

    The end of the process frees the rest, when it may be too late to call the library.
    """
    made: Made = []
    weakref.finalize(owner, free, library, made).atexit = False
    return made


def free(library: Any, made: Made) -> None:
    """Free each object."""
    for what, each in made:
        getattr(library, f"cublasLt{what}Destroy")(each)


def check(status: int) -> None:
    """Raise RuntimeError where `status` is a failure's."""
    if status:
        raise RuntimeError(f"cuBLASLt failed with status {status}")


def fits(x: Tensor) -> bool:
    """Return whether cuBLASLt takes the matrix, or the bias, `x`."""
    if x.dtype not in TYPES or x.data_ptr() % ALIGNMENT or any(size % 8 for size in x.shape):
        return False
    strides = sorted(x.stride())
    return strides[0] == 1 and not any(stride % 8 for stride in strides[1:])


def by_columns(x: Tensor) -> bool:
    """Return whether the matrix `x` is a transposed view."""
    return x.stride(1) != 1
