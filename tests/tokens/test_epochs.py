"""Orders of epochs."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.tokens.epochs import draw_each_once, mix, permute


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_an_order_has_each_item_once(size: int, key: int) -> None:
    places = np.arange(size, dtype=np.uint64)
    items = permute(places, size, np.full(size, key, np.uint64))
    assert np.array_equal(np.sort(items), places)


def test_mixing_is_splitmix64s() -> None:
    """The first numbers of the generator with the seed 1234567, as its reference prints them."""
    steps = np.array([1, 2, 3], np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert mix(np.uint64(1234567) + steps).tolist() == expected


@pytest.mark.parametrize("size", [2, 3, 4])
def test_small_orders_come_equally_often(size: int) -> None:
    epochs = 24_000
    drawn = draw_each_once(size, 0, epochs * size, seed=3)[0].reshape(epochs, size)
    kinds, counts = np.unique(drawn, axis=0, return_counts=True)
    assert {tuple(kind) for kind in kinds.tolist()} == set(permutations(range(size)))
    expected = epochs / len(kinds)
    assert abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_an_item_stands_anywhere_in_an_epoch_whatever_the_last_one_was() -> None:
    drawn = draw_each_once(20, 0, 100_000 * 20, seed=3)[0].reshape(-1, 20).astype(int)
    for pairs in (drawn[1:, 0] * 20 + drawn[:-1, 0], drawn[1:, 7] * 20 + drawn[:-1, 7]):
        counts = np.bincount(pairs, minlength=400)
        assert abs(counts - 250).max() < 5 * np.sqrt(250)
