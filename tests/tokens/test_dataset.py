"""Datasets and batches."""

import numpy as np
import pytest
import torch
from torch.utils.data import Subset

from nanogpt2.base.errors import DataError
from nanogpt2.tokens.dataset import CharDataset, TokenDataset, draw_windows, get_batch


def test_a_window_and_its_targets_one_token_later() -> None:
    dataset = CharDataset("abcabcabc", block_size=4)
    idx, targets = dataset[1]
    assert dataset.tokenizer.decode(idx.tolist()) == "bcab"
    assert dataset.tokenizer.decode(targets.tolist()) == "cabc"
    assert idx.dtype == torch.int64


def test_every_window_is_there_once() -> None:
    dataset = CharDataset("abcdefghij", block_size=4)
    assert len(dataset) == 6
    assert [int(dataset[i][0][0]) for i in range(6)] == list(range(6))
    assert torch.equal(dataset[-1][1], torch.tensor([6, 7, 8, 9]))
    with pytest.raises(IndexError):
        dataset[6]


def test_it_works_with_torchs_own_tools(text: str) -> None:
    dataset = CharDataset(text, block_size=8)
    idx, targets = next(iter(torch.utils.data.DataLoader(dataset, batch_size=5)))
    assert idx.shape == targets.shape == (5, 8)
    subset = Subset(dataset, [3, 1, 2])
    assert torch.equal(get_batch(subset, [0, 2])[0], get_batch(dataset, [3, 2])[0])


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    draws = [draw_windows(1000, 8, seed=7, step=step) for step in (0, 1, 2)]
    assert draw_windows(1000, 8, seed=7, step=1) == draws[1]
    assert draws[0] != draws[1] != draws[2]
    assert draw_windows(1000, 8, seed=8, step=1) != draws[1]
    assert draw_windows(1000, 8, seed=7, step=1, stream=1) != draws[1]


def test_windows_are_drawn_evenly() -> None:
    drawn = np.bincount(
        [w for step in range(200) for w in draw_windows(10, 100, seed=0, step=step)], minlength=10
    )
    assert len(drawn) == 10
    assert abs(drawn - 2000).max() < 5 * np.sqrt(2000)


def test_too_short_a_text_says_what_is_needed() -> None:
    with pytest.raises(DataError, match="has 8 tokens, and block_size 8 needs 9"):
        TokenDataset(np.arange(8, dtype=np.uint16), 8)


def test_a_dataset_takes_over_a_vocabulary(text: str) -> None:
    train = CharDataset(text, block_size=8)
    val = CharDataset("the dog jumps over", block_size=8).encoded_with(train.tokenizer)
    assert val.tokenizer is train.tokenizer
    assert train.tokenizer.decode(val.tokens) == "the dog jumps over"
