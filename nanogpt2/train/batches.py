"""Batches: which windows a step reads, and their tokens on the device."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nanogpt2.tokens.dataset import (
    Dataset,
    TokenDataset,
    draw_documents,
    draw_epoch,
    draw_windows,
    get_batch,
    lay_out_documents,
)
from nanogpt2.tokens.documents import Layout

EVALUATION = 1  # its stream of random numbers: training's, 0, is not disturbed


class Batches:
    """Draws windows of a dataset, a function of seed and step alone, and reads their tokens.

    `sampling` says how training draws them, as the configuration's key has it.
    """

    def __init__(self, seed: int, device: torch.device, *, sampling: str) -> None:
        self.seed = seed
        self.device = device
        self.sampling = sampling
        self.layouts: dict[Dataset, Layout] = {}  # of texts whose documents are known
        self.on_device: dict[Dataset, Tensor] = {}  # the tokens of texts that lie on a GPU

    def prepare(self, dataset: Dataset) -> str | None:
        """Return in a line what there is to say of the windows to come, if anything.

        Raises DataError where they are to follow documents of which `dataset` does not know.
        """
        return str(self._layout(dataset)) if self.sampling == "documents" else None

    def _layout(self, dataset: Dataset) -> Layout:
        if dataset not in self.layouts:
            self.layouts[dataset] = lay_out_documents(dataset)
        return self.layouts[dataset]

    def draw(self, dataset: Dataset, count: int, step: int) -> Tensor:
        """Return the numbers of the `count` windows to train on, (count,) int64 on the host."""
        if self.sampling == "random":
            windows = draw_windows(len(dataset), count, seed=self.seed, step=step)
        elif self.sampling == "documents":
            windows = draw_documents(self._layout(dataset), count, seed=self.seed, step=step)
        else:
            windows = draw_epoch(dataset, count, seed=self.seed, step=step)
        return torch.from_numpy(windows)

    def draw_to_evaluate(self, dataset: Dataset, count: int, number: int) -> Tensor:
        """Return those of evaluation batch `number`, drawn at random, the same each time."""
        drawn = draw_windows(len(dataset), count, seed=self.seed, step=number, stream=EVALUATION)
        return torch.from_numpy(drawn)

    def read(self, dataset: Dataset, windows: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `windows` as micro-batches of `size`: (idx, targets), each (size, T) int64."""
        for part in torch.split(windows, size):
            if self.device.type == "cuda" and isinstance(dataset, TokenDataset):
                yield self._gather(dataset, part.to(self.device, non_blocking=True))
            else:
                idx, targets = get_batch(dataset, part.numpy())
                yield idx.to(self.device), targets.to(self.device)

    def _gather(self, dataset: TokenDataset, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the windows at `starts` from the text as it lies on the device."""
        tokens = self.on_device.get(dataset)
        if tokens is None:
            tokens = torch.from_numpy(dataset.tokens.astype(np.int32)).to(self.device)
            self.on_device[dataset] = tokens
        positions = torch.arange(dataset.block_size + 1, device=self.device)
        batch = tokens[(starts[:, None] + positions) % len(tokens)].long()
        return batch[:, :-1], batch[:, 1:]
