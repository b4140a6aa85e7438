"""Rows of logits on a CPU, compiled from cpu.c by the C compiler of the machine."""

import ctypes
from ctypes import c_float, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

from nanogpt2.device import compiler as toolchain
from nanogpt2.kernels.cpu.library import require, require_plain
from nanogpt2.train.distil.rows import Rows

SOURCE = Path(__file__).with_name("cpu.c")
# What each function takes, as cpu.c has it; none returns anything.
SIGNATURES = {
    "add_probabilities": (
        *(c_void_p, c_void_p, c_int64, c_int64, c_int),
        *(c_float, c_float, c_float, c_int, c_int),
    ),
    "replace_by_gradient": (
        *(c_void_p, c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int, c_int),
        *(c_float, c_float, c_float, c_int),
    ),
}


class CompiledRows(Rows):
    """The rows from a compiled library. ValueError where a tensor is none that it takes."""

    def __init__(self, library: ctypes.CDLL) -> None:
        super().__init__(torch.device("cpu"))
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, None
        self.c = library

    def add_probabilities(
        self, total: Tensor, logits: Tensor, softcap: float, temperature: float, *,
        share: float, add: bool,
    ) -> None:  # fmt: skip
        R, n = total.shape
        wide = logits.float()
        require_plain(torch.float32, (R, n), total)
        require_plain(torch.float32, (R, wide.shape[1]), wide)
        require(0 < n <= wide.shape[1], f"{n} tokens in rows of {wide.shape[1]}")
        self.c.add_probabilities(
            total.data_ptr(), wide.data_ptr(), R, wide.shape[1], n, softcap, temperature, share,
            add, torch.get_num_threads(),
        )  # fmt: skip

    def replace_by_gradient(
        self, logits: Tensor, shares: Tensor, targets: Tensor, losses: Tensor, V: int,
        softcap: float, weight: float, temperature: float,
    ) -> None:  # fmt: skip
        (R, n), wide = shares.shape, logits.float()
        require_plain(torch.float32, (R, n), shares)
        require_plain(torch.float32, (R, V), wide)
        require_plain(torch.float32, (R,), losses)
        require(0 < n <= V, f"{n} tokens in rows of {V}")
        right = targets.dtype == torch.int64 and targets.is_contiguous() and len(targets) == R
        require(right, f"targets {targets.dtype} {tuple(targets.shape)}")
        require(bool((targets < V).all()), f"a target that is not below {V}")
        self.c.replace_by_gradient(
            wide.data_ptr(), shares.data_ptr(), targets.data_ptr(), losses.data_ptr(), R, V, V, n,
            softcap, temperature, weight, torch.get_num_threads(),
        )  # fmt: skip
        if wide is not logits:
            logits.copy_(wide)


def compile_rows() -> CompiledRows:
    """Return the rows, compiled now or at an earlier run; DeviceError says why there are none."""
    return CompiledRows(toolchain.load_library(SOURCE))
