"""Overlap: what stands verbatim in another text, found as by comparing every pair of windows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.text.copies import windows
from nanogpt2.text.copies.overlap import Stretch, longest_stretches, share_of_windows
from nanogpt2.text.copies.windows import character_codes

FEW_LETTERS = st.text("abé🙂", max_size=60)


def shared_by_hand(texts: list[str], source: str, length: int) -> float:
    found = [
        text[at : at + length] in source for text in texts for at in range(len(text) - length + 1)
    ]
    return sum(found) / len(found) if found else 0.0


def longest_by_hand(text: str, source: str) -> Stretch:
    for length in range(len(text), 0, -1):
        for start in range(len(text) - length + 1):
            if text[start : start + length] in source:
                return Stretch(start, length)
    return Stretch(0, 0)


@given(texts=st.lists(FEW_LETTERS, min_size=1, max_size=4), source=FEW_LETTERS, data=st.data())
def test_shared_windows_are_those_that_a_search_finds(
    texts: list[str], source: str, data: st.DataObject
) -> None:
    length = data.draw(st.integers(1, 12))
    share = share_of_windows([*map(character_codes, texts)], character_codes(source), length)
    assert share == shared_by_hand(texts, source, length)


@given(texts=st.lists(FEW_LETTERS, min_size=1, max_size=4), source=FEW_LETTERS, planted=st.data())
def test_the_longest_stretch_is_the_one_that_a_search_finds(
    texts: list[str], source: str, planted: st.DataObject
) -> None:
    start = planted.draw(st.integers(0, len(source)))
    texts = [*texts, f"b{source[start : start + 40]}a"]
    found = longest_stretches([*map(character_codes, texts)], character_codes(source))
    assert found == [longest_by_hand(text, source) for text in texts]


def test_long_texts_are_searched_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "BLOCK", 10)  # smaller than the windows
    source = np.random.default_rng(0).integers(97, 123, size=1000).astype(np.uint32)
    gap = np.array([10], dtype=np.uint32)
    text = np.concatenate([source[985:], gap, source[300:470], gap, source[:20]])
    assert longest_stretches([text], source) == [Stretch(16, 170)]
    assert share_of_windows([text], source, 100) == 71 / 108


def test_windows_that_span_two_texts_do_not_count() -> None:
    halves = [character_codes("abcdefgh"), character_codes("ijklmnop")]
    whole = character_codes("abcdefghijklmnop")
    assert share_of_windows(halves, whole, 8) == 1.0
    assert [stretch.length for stretch in longest_stretches(halves, whole)] == [8, 8]


@pytest.mark.parametrize("n_letters", [4, 80])
def test_stretches_are_found_in_two_megabytes(n_letters: int) -> None:
    source = np.random.default_rng(0).integers(97, 97 + n_letters, 2_000_000).astype(np.uint32)
    samples = [source[at : at + 300].copy() for at in range(0, 50_000, 5_000)]
    for sample in samples[1:]:
        sample[::40] = 10  # cut into pieces
    found = longest_stretches(samples, source)
    share_of_windows([source[:200_000]], source, 100)
    assert found[0] == Stretch(0, 300)
    assert {stretch.length for stretch in found[1:]} == {39}
