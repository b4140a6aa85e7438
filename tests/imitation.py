"""An imitation of cuBLASLt that computes on the host, and counts what is made and destroyed."""

import ctypes
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from spoiled import spoil
from torch import Tensor

DTYPES = {0: torch.float32, 2: torch.float16, 14: torch.bfloat16}
TRANSPOSED = {"a": 3, "b": 4}
EPILOGUE, BIAS, AUXILIARY, AUXILIARY_STRIDE = 7, 8, 11, 12
ADDS_BIAS, IS_GELU, IS_GRADIENT = 4, 32, 64
LARGEST = 9999  # columns of what an algorithm is proposed for


class Product(NamedTuple):
    """A product as it was asked for."""

    epilogue: int
    adds: bool
    transposed: tuple[bool, bool]


class Imitation:
    """Has the functions of cuBLASLt; those products that are `wrong` are so in one element."""

    def __init__(
        self, *, version: int = 120_900, wrong: Callable[[Product], bool] = lambda _: False
    ) -> None:
        self.version, self.wrong = version, wrong
        self.objects: dict[int, dict[Any, Any]] = {}
        self.made: Counter[str] = Counter()
        self.destroyed: Counter[str] = Counter()
        self.asked: list[int] = []  # of each heuristic, how many proposals
        self.done: list[Product] = []
        self.failing: str | None = None  # what cannot be created

    def __getattr__(self, name: str) -> Callable[..., int]:
        """Return the function of that name."""
        what = name.removeprefix("cublasLt")
        if what.endswith("Create"):
            return lambda out, *values: self._create(what.removesuffix("Create"), out, values)
        if what.endswith("Destroy"):
            return lambda pointer: self._destroy(what.removesuffix("Destroy"), pointer)
        functions: dict[str, Callable[..., int]] = {
            "GetVersion": lambda: self.version,
            "MatmulDescSetAttribute": self._set,
            "MatmulPreferenceSetAttribute": self._set,
            "MatmulAlgoGetHeuristic": self._propose,
            "Matmul": self._multiply,
        }
        if what not in functions:
            raise AttributeError(name)
        return functions[what]

    def _create(self, kind: str, out: Any, values: tuple[int, ...]) -> int:
        if kind == self.failing:
            return 3
        self.made[kind] += 1
        out._obj.value = sum(self.made.values())
        self.objects[out._obj.value] = {"kind": kind, "values": values}
        return 0

    def _destroy(self, kind: str, pointer: ctypes.c_void_p) -> int:
        assert self.objects.pop(pointer.value or 0)["kind"] == kind
        self.destroyed[kind] += 1
        return 0

    def _set(self, description: ctypes.c_void_p, attribute: int, value: Any, size: int) -> int:
        assert size == ctypes.sizeof(value._obj)
        self.objects[description.value or 0][attribute] = value._obj.value
        return 0

    def _propose(
        self, handle: ctypes.c_void_p, description: ctypes.c_void_p, a: ctypes.c_void_p,
        b: ctypes.c_void_p, c: ctypes.c_void_p, out: ctypes.c_void_p,
        preference: ctypes.c_void_p, count: int, proposals: Any, found: Any,
    ) -> int:  # fmt: skip
        self.asked.append(count)
        for pointer, kind in ((handle, ""), (preference, "MatmulPreference")):
            assert self.objects[pointer.value or 0]["kind"] == kind
        if self.objects[out.value or 0]["values"][2] > LARGEST:
            return 15  # not supported
        found._obj.value = 1
        return 0

    def _multiply(
        self, handle: ctypes.c_void_p, description: ctypes.c_void_p, alpha: Any,
        a: int, a_layout: ctypes.c_void_p, b: int, b_layout: ctypes.c_void_p, beta: Any,
        c: int, c_layout: ctypes.c_void_p, out: int, out_layout: ctypes.c_void_p,
        algorithm: Any, workspace: int, size: int, stream: int | None,
    ) -> int:  # fmt: skip
        described = self.objects[description.value or 0]
        transposed = bool(described[TRANSPOSED["a"]]), bool(described[TRANSPOSED["b"]])
        product = Product(described[EPILOGUE], beta._obj.value != 0, transposed)
        self.done.append(product)
        first, second = self._matrix(a, a_layout), self._matrix(b, b_layout)
        first = first.t() if transposed[0] else first
        second = second.t() if transposed[1] else second
        result = self._matrix(out, out_layout)
        y = alpha._obj.value * (first.float() @ second.float())
        if product.adds:
            y += beta._obj.value * self._matrix(c, c_layout).float()
        y = self._finish(y, described, result.dtype)
        result.copy_(spoil(y) if self.wrong(product) else y)
        return 0

    def _finish(self, y: Tensor, described: dict[Any, Any], dtype: torch.dtype) -> Tensor:
        """Apply the epilogue."""
        epilogue, (rows, columns) = described[EPILOGUE], y.shape
        if epilogue & ADDS_BIAS:
            y = y + view(described[BIAS], dtype, (rows, 1), rows).float()
        if epilogue & (IS_GELU | IS_GRADIENT):
            stride = described[AUXILIARY_STRIDE]
            auxiliary = view(described[AUXILIARY], dtype, (rows, columns), stride)
            if epilogue & IS_GRADIENT:
                x = auxiliary.float()
                slope: Tensor = torch.ops.aten.gelu_backward(y, x, approximate="tanh")
                return slope
            auxiliary.copy_(y)
            y = F.gelu(y, approximate="tanh")
        return y

    def _matrix(self, pointer: int, layout: ctypes.c_void_p) -> Tensor:
        kind, rows, columns, stride = self.objects[layout.value or 0]["values"]
        return view(pointer, DTYPES[kind], (rows, columns), stride)


def view(pointer: int, dtype: torch.dtype, shape: tuple[int, int], stride: int) -> Tensor:
    """Return the matrix that lies at `pointer` by columns, `stride` elements apart."""
    rows, columns = shape
    count = stride * (columns - 1) + rows
    memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(pointer)
    return torch.frombuffer(memory, dtype=dtype).as_strided(shape, (1, stride))
