"""Matrices as the processes keep them: each has all of them, or some rows of each, as FSDP has it.

An update that needs whole matrices is shared out: each process gathers a part of the matrices, and
hands on what it finds, so that nothing is computed twice.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


class Whole:
    """Matrices of one shape that each process has whole."""

    def own(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Return what this process has of `tensors`."""
        return list(tensors)

    def gather(self, parts: Tensor) -> Tensor:
        """Return the matrices (n, rows, columns) that are this process's to look at whole.

        `parts` (N, own rows, columns) is what it has of all.
        """
        return parts

    def hand_on(self, matrices: Tensor, count: int) -> Tensor:
        """Return (N, own rows, columns) of all `count` matrices; `matrices` are this process's."""
        return matrices

    def of_all(self, values: Tensor, count: int) -> Tensor:
        """Return (N, n): the values of all `count` matrices; `values` are of this process's."""
        return values

    def of_mine(self, values: Tensor) -> Tensor:
        """Return those of `values` (N, n) that are of this process's matrices."""
        return values


class Spread(Whole):
    """Matrices of one shape of which each process has some rows, in order, as torch.chunk cuts.

    `like` is one of them, a DTensor. Process r looks at the r-th part of them, as chunk cuts too.
    """

    def __init__(self, like: Tensor) -> None:
        from torch.distributed.tensor import DTensor

        assert isinstance(like, DTensor)
        self.group, self.rows = like.device_mesh.get_group(), len(like)
        self.rank, self.size = dist.get_rank(self.group), dist.get_world_size(self.group)
        self.most_rows = -(-self.rows // self.size)  # that a process has
        self.own_rows = len(like.to_local())

    def own(self, tensors: Iterable[Tensor]) -> list[Tensor]:
        """Return what this process has of `tensors`, DTensors."""
        return [tensor.to_local() for tensor in tensors]  # type: ignore[attr-defined]

    def gather(self, parts: Tensor) -> Tensor:
        """Return the matrices (n, rows, columns) that are this process's to look at whole."""
        N, _, columns = parts.shape
        n = self._share(N)
        padded = parts.new_zeros(self.size * n, self.most_rows, columns)
        padded[:N, : self.own_rows] = parts
        joined = self._exchange(padded).view(self.size, n, self.most_rows, columns).transpose(0, 1)
        return joined.reshape(n, -1, columns)[:, : self.rows]

    def hand_on(self, matrices: Tensor, count: int) -> Tensor:
        """Return (N, own rows, columns) of all `count` matrices; `matrices` are this process's."""
        n, _, columns = matrices.shape
        padded = matrices.new_zeros(n, self.size * self.most_rows, columns)
        padded[:, : self.rows] = matrices
        by_process = padded.view(n, self.size, self.most_rows, columns).transpose(0, 1)
        received = self._exchange(by_process.contiguous())
        return received.view(-1, self.most_rows, columns)[:count, : self.own_rows]

    def of_all(self, values: Tensor, count: int) -> Tensor:
        """Return (N, n): the values of all `count` matrices; `values` are of this process's."""
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(gathered, values.contiguous(), self.group)
        return torch.cat(gathered)[:count]

    def of_mine(self, values: Tensor) -> Tensor:
        """Return those of `values` (N, n) that are of this process's matrices."""
        n = self._share(len(values))
        padded = values.new_zeros(self.size * n, *values.shape[1:])
        padded[: len(values)] = values
        return padded[self.rank * n :][:n]

    def _share(self, count: int) -> int:
        """Return how many of `count` matrices a process looks at; the last ones may be none."""
        return -(-count // self.size)

    def _exchange(self, parts: Tensor) -> Tensor:
        """Send the r-th of equal parts of `parts` to process r; return what has come from each."""
        received = torch.empty_like(parts)
        flat = parts.view(torch.uint8)  # gloo sends no numbers of 16 bits
        dist.all_to_all_single(received.view(torch.uint8), flat, group=self.group)
        return received


def lying(like: Tensor) -> Whole:
    """Return how matrices such as `like` lie."""
    is_spread = dist.is_available() and dist.is_initialized() and hasattr(like, "device_mesh")
    return Spread(like) if is_spread else Whole()
