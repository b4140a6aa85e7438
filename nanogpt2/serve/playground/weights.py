"""Weights as a page holds them: numbers of 16 bits, or of 8 with a scale for each row of a matrix.

Rows of the embedding and the head that no token uses are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nanogpt2.base.system.errors import CheckpointError
from nanogpt2.decode.kernels.int8 import round_rows

KINDS = {8: "i8", 16: "f16"}  # of a matrix's numbers, by their bits
WITH_ROWS_OF_TOKENS = ("wte.weight", "lm_head.weight")


@dataclass(frozen=True)
class Packed:
    """Packed weights: `content`, and for each name where in it they are, their shape and kind."""

    tensors: dict[str, dict[str, Any]]
    content: bytes


def pack(weights: Mapping[str, Tensor], *, n_tokens: int, bits: int) -> Packed:
    """Return `weights` in `bits` a number, 16 or 8; vectors have 16 always.

    CheckpointError for a number that 16 bits cannot hold.
    """
    tensors: dict[str, dict[str, Any]] = {}
    content = bytearray()
    for name, weight in weights.items():
        matrix = as_matrix(weight[:n_tokens] if name in WITH_ROWS_OF_TOKENS else weight)
        kind = kind_of(weight, bits)
        rows, cols = matrix.shape
        tensors[name] = {"from": len(content), "rows": rows, "cols": cols, "kind": kind}
        if kind == "f16":
            halves = matrix.half()
            if not halves.isfinite().all():
                raise CheckpointError(f"{name}: a weight is not finite, or too large for 16 bits")
            content += halves.numpy().astype("<f2").tobytes()
        else:
            scales, numbers = round_rows(matrix)
            content += scales.numpy().astype("<f4").tobytes() + numbers.numpy().tobytes()
    return Packed(tensors, bytes(content))


def kind_of(weight: Tensor, bits: int) -> str:
    """Return how the numbers of `weight` are kept where matrices have `bits`: i8 or f16."""
    if bits not in KINDS:
        raise CheckpointError(
            f"bits: found {bits}; allowed in a page: {', '.join(map(str, KINDS))}"
        )
    return KINDS[bits] if weight.dim() == 2 else "f16"


def as_matrix(weight: Tensor) -> Tensor:
    """Return `weight` in float32 on the CPU as rows: a vector has one."""
    flat = weight.detach().cpu().float()
    return flat.reshape(1 if flat.dim() == 1 else len(flat), -1)


def as_packed(weights: Mapping[str, Tensor], *, bits: int) -> dict[str, Tensor]:
    """Return `weights` with the values that `pack` keeps of them, in their own shapes."""
    kept = {}
    for name, weight in weights.items():
        matrix = as_matrix(weight)
        if kind_of(weight, bits) == "i8":
            scales, numbers = round_rows(matrix)
            matrix = scales * numbers
        else:
            matrix = matrix.half().float()
        kept[name] = matrix.reshape(weight.shape)
    return kept
