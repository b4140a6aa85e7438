"""Words: blocks have those of the whole, and each library cuts the same."""

import sys
from collections import Counter

import numpy as np
import pytest
from hostile import HARD, TEXTS
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.base.system.errors import DataError, ExtraError
from nanogpt2.tokens.bpe import words
from nanogpt2.tokens.bpe.merges import train_from_texts
from nanogpt2.tokens.bpe.words import WORDS, count_words, find_cut

ASCII = [*"aZ09 \t\n\r\x0b\x0c.,_\x00\x7f'", "'s", "'ll", "'ve", " '", "'re", "'D", "  "]

TRAINED = train_from_texts([" ".join(TEXTS)[:10_000]], 400)


@given(HARD)
def test_a_cut_leaves_words_and_tokens_whole(text: str) -> None:
    cut = find_cut(text)
    start, end = text[:cut], text[cut:]
    assert count_words(start) + count_words(end) == count_words(text)
    tokens = np.concatenate([TRAINED.encode(start), TRAINED.encode(end)])
    assert np.array_equal(tokens, TRAINED.encode(text))


def test_a_text_of_lines_is_cut_near_its_end() -> None:
    assert find_cut("one two\nthree\n\n") == len("one two")
    assert find_cut("one two\nthree, ") == len("one two")
    assert find_cut("日本日本") == find_cut("") == 0


def test_words_are_those_of_the_pattern_with_and_without_gigatoken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    regex = pytest.importorskip("regex")
    counted = [count_words(text) for text in TEXTS]
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    assert [count_words(text) for text in TEXTS] == counted
    for text, counts in zip(TEXTS, counted, strict=True):
        assert counts == Counter(word.encode() for word in regex.findall(WORDS, text)), text[:30]


@settings(max_examples=200)
@given(text=st.lists(st.sampled_from(ASCII), max_size=60).map("".join))
def test_words_of_ascii_are_the_same_in_c(text: str) -> None:
    regex = pytest.importorskip("regex")
    if words.find_library() is None:
        pytest.skip("no C compiler")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "WORTH", 0)
        counts = count_words(text)
    assert counts == Counter(word.encode() for word in regex.findall(WORDS, text))


def test_thousands_of_words_are_counted_in_c() -> None:
    if words.find_library() is None:
        pytest.skip("no C compiler")
    expected = {f" w{number}".encode(): 1 + number % 3 for number in range(100_000)}
    text = b"".join(word * times for word, times in expected.items()).decode()
    assert len(text) > words.WORTH
    found = count_words(text.replace("w", "!"))
    assert found.total() == 2 * sum(expected.values())
    assert found[b" !"] == sum(expected.values())
    assert found[b"99999"] == expected[b" w99999"]


def test_half_a_surrogate_pair_and_missing_libraries_are_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(DataError, match=r"U\+DC80\), number 2 of the text"):
        count_words("a\udc80")
    for name in ("gigatoken", "regex"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExtraError, match=r"regex is not installed: .*nanogpt2\[bpe\]"):
        count_words("a")
