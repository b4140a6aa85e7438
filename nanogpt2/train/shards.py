"""Canonical shards: equal parts of a step's batch, whose gradients are added up in a fixed tree.

Which windows a shard has, in which micro-batches they go through the model, its dropout and its
place in the tree are functions of the experiment, and not of the number of processes that share
the shards. So any number of them ends with the same bytes.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nanogpt2.device.group import Group


class Shards:
    """The shards of each step, `count` in all, of which a process of `group` has some in a row.

    Their gradients, of `weights`, travel as one tensor (n,) with the loss at its end.
    """

    def __init__(self, count: int, group: Group, weights: Sequence[Tensor]) -> None:
        self.each = max(1, count // group.size)
        self.first = group.rank * self.each
        self.weights = weights
        self.changed: list[Tensor] = []  # the weights that have gradients

    def number(self, windows: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of each shard of this process, and its part of `windows`, all theirs."""
        return enumerate(windows.chunk(self.each), self.first)

    def join(self, loss: Tensor) -> Tensor:
        """Return the gradients and `loss` as one tensor; they are no longer the weights' own."""
        self.changed = [weight for weight in self.weights if weight.grad is not None]
        parts = [weight.grad.flatten() for weight in self.changed if weight.grad is not None]
        for weight in self.changed:
            weight.grad = None
        return torch.cat([*parts, loss.view(1)])

    def part(self, joined: Tensor) -> Tensor:
        """Give the weights their gradients in `joined`, and return the loss."""
        sizes = [weight.numel() for weight in self.changed]
        *gradients, loss = torch.split(joined, [*sizes, 1])
        for weight, gradient in zip(self.changed, gradients, strict=True):
            weight.grad = gradient.view_as(weight)
        return loss.view(())
