"""Overlap piece by piece: what one search of the whole texts finds, however they are cut."""

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.text.copies.held_out import LENGTH, HeldOut, Windows, combine, gather
from nanogpt2.text.copies.overlap import share_of_windows
from nanogpt2.text.copies.windows import character_codes


def cut(text: str, cuts: list[int]) -> list[tuple[str, str]]:
    """Return the pieces of `text`, each with all that follows it."""
    ends = sorted({0, len(text), *(at % (len(text) + 1) for at in cuts)})
    return [(text[a:b], text[b:]) for a, b in pairwise(ends)]


def random_text(size: int, seed: int) -> str:
    letters = np.random.default_rng(seed).integers(97, 123, size).astype(np.uint8)
    return letters.tobytes().decode()


def shares_met(splits: dict[str, HeldOut], pieces: list[tuple[str, str]]) -> dict[str, float]:
    """Return the share of the windows of each split that stand in the pieces of another text."""
    windows = pickle.loads(pickle.dumps(Windows.of(splits)))  # as another process gets it
    met = np.zeros(windows.size, dtype=np.bool_)
    for piece in pieces:
        met[windows.look_up(*piece)] = True
    return {name: windows.share(held_out, met) for name, held_out in splits.items()}


CUTS = st.lists(st.integers(0, 10_000), max_size=5)


@settings(max_examples=30)
@given(cuts=CUTS, train_cuts=CUTS, planted=st.lists(st.integers(0, 1000), max_size=4))
def test_the_share_is_that_of_the_whole_texts(
    cuts: list[int], train_cuts: list[int], planted: list[int]
) -> None:
    held_out = {"val": random_text(1500, 1) + "é" * 150, "test": random_text(90, 2)}
    train = random_text(500, 3) + "".join(held_out["val"][at : at + 300] + "#" for at in planted)
    gathered = {
        name: combine(gather(*piece) for piece in reversed(cut(text, cuts)))
        for name, text in held_out.items()
    }
    shares = shares_met(gathered, cut(train, train_cuts))
    assert shares == {
        name: share_of_windows([character_codes(text)], character_codes(train), LENGTH)
        for name, text in held_out.items()
    }
    assert shares["test"] == 0.0  # shorter than a window


@pytest.mark.parametrize("limit", [10, 1000, 5000])
def test_what_is_kept_of_much_text_depends_on_no_cut_and_tells_the_share(limit: int) -> None:
    text = random_text(40_000, 4)
    train = text[:10_000]
    whole = gather(text, limit=limit)
    assert limit / 4 < len(whole.hashes) <= limit
    for cuts in ([100, 20_000], list(range(0, 40_000, 777))):
        pieces = [gather(*piece, limit=limit) for piece in cut(text, cuts)]
        parts = combine(pieces[::-1], limit=limit)
        assert parts.level == whole.level
        np.testing.assert_array_equal(parts.hashes, whole.hashes)
        np.testing.assert_array_equal(parts.counts, whole.counts)
    share = shares_met({"val": whole}, [(train, "")])["val"]
    assert share == pytest.approx(9901 / 39_901, abs=1.5 / limit**0.5)


def test_a_window_that_comes_again_and_again_counts_each_time() -> None:
    val = gather("x" * 1099 + random_text(901, 5))
    assert shares_met({"val": val}, [("x" * 100, "")]) == {"val": 1000 / 1901}
