"""Datasets and batches."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from nanogpt2.base.system.errors import DataError
from nanogpt2.tokens.dataset import (
    CharDataset,
    TokenDataset,
    draw_epoch,
    draw_windows,
    get_batch,
)


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
    draws = [draw_windows(1000, 8, seed=7, step=step).tolist() for step in (0, 1, 2)]
    assert draw_windows(1000, 8, seed=7, step=1).tolist() == draws[1]
    assert draws[0] != draws[1] != draws[2]
    assert draw_windows(1000, 8, seed=8, step=1).tolist() != draws[1]
    assert draw_windows(1000, 8, seed=7, step=1, stream=1).tolist() != draws[1]


def test_windows_are_drawn_evenly() -> None:
    drawn = np.concatenate([draw_windows(10, 100, seed=0, step=step) for step in range(200)])
    counts = np.bincount(drawn, minlength=10)
    assert len(counts) == 10
    assert abs(counts - 2000).max() < 5 * np.sqrt(2000)


# --- Each token once an epoch ---


def read_epoch(dataset: TokenDataset, number: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return all batches of an epoch as one."""
    windows = len(dataset.tokens) // dataset.block_size
    return dataset.batch(draw_epoch(dataset, windows, seed=seed, step=number))


@given(
    block_size=st.integers(1, 20),
    length=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 10**9),
)
def test_over_an_epoch_each_token_is_a_target_once(
    block_size: int, length: int, seed: int, epoch: int
) -> None:
    n_tokens = block_size + length
    dataset = TokenDataset(range(n_tokens), block_size)
    idx, targets = read_epoch(dataset, epoch, seed=seed)
    times = np.bincount(targets.flatten(), minlength=n_tokens)
    left_out = np.flatnonzero(times == 0)
    assert times.max() == 1
    assert len(left_out) == n_tokens % block_size  # none where block_size divides the text
    assert torch.equal((idx + 1) % n_tokens, targets)  # the text as it stands, read as a ring


def test_what_an_epoch_leaves_out_lies_together_and_elsewhere_each_time() -> None:
    dataset = TokenDataset(range(103), 10)
    left_out = [set(range(103)) - set(read_epoch(dataset, e)[1].flatten().tolist()) for e in (0, 1)]
    assert left_out[0] != left_out[1]
    for tokens in left_out:
        assert any(tokens == {(first + i) % 103 for i in range(3)} for first in tokens)


def test_each_epoch_cuts_the_text_elsewhere_and_has_an_order_of_its_own() -> None:
    dataset = TokenDataset(range(1000), 10)
    starts = [draw_epoch(dataset, 100, seed=0, step=epoch) for epoch in range(50)]
    assert len({int(start[0]) % 10 for start in starts}) == 10
    orders = [np.argsort(start).tolist() for start in starts]
    assert len({tuple(order) for order in orders}) == 50
    neighbours = np.concatenate([np.diff(start) % 1000 // 10 for start in starts])
    assert abs(np.bincount(neighbours, minlength=100)[1:] - 50).max() < 5 * np.sqrt(50)


@given(size=st.integers(1, 200), batch=st.integers(1, 70), steps=st.integers(1, 20))
def test_windows_come_in_the_same_order_whatever_the_batch(
    size: int, batch: int, steps: int
) -> None:
    dataset = TokenDataset(range(size + 3), 3)
    batches = [draw_epoch(dataset, batch, seed=5, step=step) for step in range(steps)]
    at_once = draw_epoch(dataset, batch * steps, seed=5, step=0)
    assert np.concatenate(batches).tolist() == at_once.tolist()


@given(size=st.integers(1, 500), seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 10**9))
def test_over_an_epoch_each_item_of_any_dataset_comes_once(
    size: int, seed: int, epoch: int
) -> None:
    dataset = TensorDataset(torch.zeros(size, 4), torch.zeros(size, 4))
    assert sorted(draw_epoch(dataset, size, seed=seed, step=epoch)) == list(range(size))


def test_another_seed_has_other_epochs() -> None:
    dataset = TokenDataset(range(1000), 10)
    draws = [draw_epoch(dataset, 100, seed=seed, step=0).tolist() for seed in (0, 1, 2**32 - 1)]
    assert draws[0] != draws[1] != draws[2] != draws[0]


class Endless:
    """A dataset of a million million items."""

    def __len__(self) -> int:
        return 10**12

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.tensor([index]), torch.tensor([index + 1])


def test_no_size_is_too_large_for_epochs() -> None:
    drawn = draw_epoch(Endless(), 10_000, seed=0, step=10**6)
    assert len(set(drawn.tolist())) == 10_000
    assert 0 <= drawn.min() < 10**9
    assert 10**12 - 10**9 < drawn.max() < 10**12


def test_too_short_a_text_says_what_is_needed() -> None:
    with pytest.raises(DataError, match="has 8 tokens, and block_size 8 needs 9"):
        TokenDataset(np.arange(8, dtype=np.uint16), 8)


def test_a_dataset_takes_over_a_vocabulary(text: str) -> None:
    train = CharDataset(text, block_size=8)
    val = CharDataset("the dog jumps over", block_size=8).encoded_with(train.tokenizer)
    assert val.tokenizer is train.tokenizer
    assert train.tokenizer.decode(val.tokens) == "the dog jumps over"
