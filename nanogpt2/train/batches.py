"""Batches: which windows a step reads, and their tokens on the device."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nanogpt2.tokens.dataset import Dataset, TokenDataset, draw_windows, get_batch

TRAINING, EVALUATION = 0, 1  # streams of random numbers: neither disturbs the other


class Batches:
    """Draws windows of a dataset, a function of (seed, step, stream), and reads their tokens."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed = seed
        self.device = device
        self.on_device: dict[Dataset, Tensor] = {}  # the tokens of texts that lie on a GPU

    def draw(self, dataset: Dataset, count: int, step: int, *, stream: int = TRAINING) -> Tensor:
        """Return the numbers of `count` windows, (count,) int64 on the host."""
        windows = draw_windows(len(dataset), count, seed=self.seed, step=step, stream=stream)
        return torch.tensor(windows)

    def read(self, dataset: Dataset, windows: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `windows` as micro-batches of `size`: (idx, targets), each (size, T) int64."""
        for part in torch.split(windows, size):
            if self.device.type == "cuda" and isinstance(dataset, TokenDataset):
                yield self._gather(dataset, part.to(self.device, non_blocking=True))
            else:
                idx, targets = get_batch(dataset, part.tolist())
                yield idx.to(self.device), targets.to(self.device)

    def _gather(self, dataset: TokenDataset, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the windows at `starts` from the text as it lies on the device."""
        tokens = self.on_device.get(dataset)
        if tokens is None:
            tokens = torch.from_numpy(dataset.tokens.astype(np.int32)).to(self.device)
            self.on_device[dataset] = tokens
        positions = torch.arange(dataset.block_size + 1, device=self.device)
        batch = tokens[starts[:, None] + positions].long()
        return batch[:, :-1], batch[:, 1:]
