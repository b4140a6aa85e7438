"""Blocks: wherever a text is cut, its normal form and its tokens are those of the whole."""

import io
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nanogpt2.base.system.errors import DataError
from nanogpt2.text.scan import blocks
from nanogpt2.text.scan.blocks import find_cuts, last_cut, plan_spans, read_blocks
from nanogpt2.tokens.bpe.words import count_words
from nanogpt2.tokens.normal import normalise, normalise_within

WORDS = ["word", "don't", "'ll", "12", "é", "e\u0301", "\u0301", "字。字", "\uff0c字", "🙂", "!?"]
MORE = ["'", "\ufeff", "한", "\u1161"]  # a quote, a byte order mark, a syllable and a vowel
SPACES = [" ", "  ", "\n", "\n\n", "\r\n", "\r", "\t", "\u00a0", "\u2028", "\x85", "\u3000"]
PIECES = st.lists(st.sampled_from([*WORDS, *MORE, *SPACES]), max_size=40).map("".join)


@given(PIECES)
@example("one\ntwo three\n four")
@example("ab 'll\n's d")
@example("字。字 字\uff0c字")
@example("a\r\nb\r\n\u0301c")
def test_cut_anywhere_a_text_has_the_words_and_the_form_of_the_whole(text: str) -> None:
    content = text.encode()
    places = [0, *find_cuts(content), len(content)]
    parts = [content[start:end].decode() for start, end in pairwise(places)]
    normal = [normalise_within(part) if n else normalise(part) for n, part in enumerate(parts)]
    whole = normalise(text)
    assert "".join(normal) == whole
    counted = sum((count_words(part) for part in normal), count_words(""))
    assert counted == count_words(whole)


@given(PIECES, st.integers(1, 50))
def test_blocks_put_together_are_the_text(text: str, block_bytes: int) -> None:
    content = text.encode()
    found = list(read_blocks(io.BytesIO(content), Path("a"), size=None, block_bytes=block_bytes))
    assert b"".join(found) == content
    assert all(found)
    cuts = {*find_cuts(content)}
    at = 0
    for block in found[:-1]:
        at += len(block)
        assert at in cuts or last_cut(content[: at + 1]) is not None or not cuts


def test_spans_of_a_large_text_touch_and_begin_at_cuts(tmp_path: Path) -> None:
    lines = [f"line {number}" + "\r\n" * (1 + number % 2) for number in range(5000)]
    path = tmp_path / "a.txt"
    path.write_bytes(content := "".join(lines).encode())
    spans = plan_spans(path, len(content), 1000)
    assert len(spans) > 30
    assert [span.end for span in spans[:-1]] == [span.start for span in spans[1:]]
    assert spans[0].start == 0
    assert spans[-1].end is None
    cuts = {*find_cuts(content)}
    assert all(span.start in cuts for span in spans[1:])


def test_a_text_without_a_place_to_cut_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "LONGEST_UNCUT", 1 << 20)
    endless = io.BytesIO(b"a" * (3 << 20))
    with pytest.raises(DataError, match=r"a\.txt: 1 MB without a line end or a space"):
        list(read_blocks(endless, Path("a.txt"), size=None, block_bytes=1 << 18))
