"""Sums in a fixed tree: neighbours in pairs, then pairs of pairs, whichever process has them.

Rounding makes a floating-point sum depend on its order. That of `torch.distributed.all_reduce`
depends on the number of processes and on how they are linked; this one on the parts alone.
"""

import torch
import torch.distributed as dist
from torch import Tensor

PIECE = 2**24  # elements that travel together


class TreeSum:
    """The sum of tensors of one shape that come one by one; it takes them over.

    Of n of them it holds log2(n) + 1 at a time, at most.
    """

    def __init__(self) -> None:
        self.sums: list[tuple[int, Tensor]] = []  # (how many parts, their sum), ever fewer parts

    def add(self, part: Tensor) -> None:
        """Add the next part."""
        count = 1
        while self.sums and self.sums[-1][0] == count:
            part = self.sums.pop()[1].add_(part)
            count *= 2
        self.sums.append((count, part))

    def total(self) -> Tensor:
        """Return the sum of all parts, of which a power of two have come."""
        ((_, total),) = self.sums
        return total


def add_up_over_processes(flat: Tensor, size: int) -> None:
    """Make `flat` (n,) the sum of all `size` processes', a power of two, in place.

    Each process adds up its share of the elements and hands the sums on, so that as much travels as
    in an all-reduce.
    """
    for piece in torch.split(flat, PIECE):
        padded = torch.cat([piece, piece.new_zeros(-len(piece) % size)])
        received = torch.empty_like(padded)
        dist.all_to_all_single(received, padded)
        tree = TreeSum()
        for part in received.chunk(size):
            tree.add(part)
        # gloo's all-gather takes several times as long
        dist.all_to_all_single(padded, tree.total().repeat(size))
        piece.copy_(padded[: len(piece)])
