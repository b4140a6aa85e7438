"""Batches: what a step reads."""

import numpy as np
import pytest
import torch

from nanogpt2.device.group import Group
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.train.batches import Batches

CPU = torch.device("cpu")


def test_processes_and_micro_batches_read_each_token_once_an_epoch_together() -> None:
    dataset = TokenDataset(np.arange(8 * 5 * 6), 8)
    targets = []
    for step in range(5):
        for rank in range(3):
            batches = Batches(7, CPU, sampling="epoch")
            windows = Group(rank, 3).share(batches.draw(dataset, 6, step))
            targets += [targets for _, targets in batches.read(dataset, windows, 1)]
    assert len(targets) == 5 * 6
    assert sorted(torch.cat(targets).flatten().tolist()) == list(range(8 * 5 * 6))


def test_windows_drawn_at_random_leave_tokens_out() -> None:
    dataset = TokenDataset(np.arange(8 * 5 * 6), 8)
    windows = Batches(7, CPU, sampling="random").draw(dataset, 30, 0)
    assert len(set(dataset.batch(windows.numpy())[1].flatten().tolist())) < 8 * 5 * 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_reads_what_a_cpu_reads_also_past_the_end_of_the_text() -> None:
    dataset = TokenDataset(np.arange(100), 8)
    windows = torch.arange(100)
    for batch in zip(
        *(
            list(Batches(7, torch.device(kind), sampling="epoch").read(dataset, windows, 30))
            for kind in ("cpu", "cuda")
        ),
        strict=True,
    ):
        for ours, theirs in zip(*batch, strict=True):
            assert torch.equal(ours, theirs.cpu())
