"""The quick encoder: the tokens of the exact one, for each character and hostile texts."""

import json
import pickle
import sys
from collections.abc import Iterator
from itertools import chain

import numpy as np
import pytest
from gpt2_vocabulary import gpt2_tokenizer
from hostile import HARD, TEXTS
from hypothesis import given

from nanogpt2.base.system import errors
from nanogpt2.tokens.bpe import encoder
from nanogpt2.tokens.bpe.arrays import TokenArray
from nanogpt2.tokens.bpe.bpe import BYTE_CHARACTERS, BytePairTokenizer
from nanogpt2.tokens.bpe.words import find_gigatoken

# a letter or digit and a byte that a character begins with, so that words show in the tokens
SEEN = [f"{first} {BYTE_CHARACTERS[lead]}" for first in "a1" for lead in range(0x21, 0xF5)]
SEEN = [merge for merge in SEEN if merge[2] not in "a1"]
SPLITTING = BytePairTokenizer([*BYTE_CHARACTERS, *(m.replace(" ", "") for m in SEEN)], SEEN)
PARTS = {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}}
MODEL = {"type": "BPE", "vocab": {each: n for n, each in enumerate(BYTE_CHARACTERS)}, "merges": []}
FOUND = find_gigatoken() is not None
needs_gigatoken = pytest.mark.skipif(not FOUND, reason="gigatoken is not installed")


def encode(tokenizer: BytePairTokenizer, text: str, *, quickly: bool) -> TokenArray:
    """Return the tokens of `text` from gigatoken, or from tiktoken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "LONG", 0 if quickly else sys.maxsize)
        return tokenizer.encode(text)


def _plain_ranges() -> Iterator[int]:
    """Yield the code points of Unicode but for surrogates and the inside of uniform blocks."""
    small = [(0, 0x3400), (0xA000, 0xAC20), (0xD780, 0xD800), (0xE000, 0xE010), (0xF8F0, 0x20010)]
    tails = [(0x2A6D0, 0x2A710), (0x2B730, 0x2B750), (0x2CE90, 0x2CEC0), (0x2EBD0, 0x2EBF0)]
    rest = [(0x31340, 0x31360), (0x323A0, 0x33490), (0xE0000, 0xE0200), (0x10FFF0, 0x110000)]
    yield from chain.from_iterable(range(*bounds) for bounds in (*small, *tails, *rest))


@needs_gigatoken
def test_each_character_of_unicode_is_cut_alike() -> None:
    characters = [chr(point) for point in _plain_ranges()]
    for start in range(0, len(characters), 500):
        text = "\n".join(f"a{each}1{each} {each}{each}\n" for each in characters[start:][:500])
        exact = encode(SPLITTING, text, quickly=False)
        assert np.array_equal(encode(SPLITTING, text, quickly=True), exact), hex(ord(text[1]))


@needs_gigatoken
@given(HARD)
def test_any_text_has_the_same_tokens(text: str) -> None:
    exact = encode(SPLITTING, text, quickly=False)
    assert np.array_equal(encode(SPLITTING, text, quickly=True), exact)


@needs_gigatoken
def test_hostile_texts_have_the_same_tokens_of_gpt2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "FRESH", 100_000)  # it starts anew in between
    tokenizer = gpt2_tokenizer()
    for text in [*TEXTS, "".join(TEXTS)]:
        exact = encode(tokenizer, text, quickly=False)
        assert np.array_equal(encode(tokenizer, text, quickly=True), exact), text[:30]


def test_a_tokenizer_that_has_encoded_goes_to_other_processes() -> None:
    expected = encode(SPLITTING, "naïve 12", quickly=FOUND)
    again = pickle.loads(pickle.dumps(SPLITTING))
    assert np.array_equal(again.encode("naïve 12"), expected)


def test_without_gigatoken_long_texts_have_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "naïve it's 12 " * 3000
    expected = SPLITTING.encode(text)
    again = BytePairTokenizer(SPLITTING.vocabulary, SPLITTING.merges)
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    assert np.array_equal(again.encode(text), expected)


@needs_gigatoken
def test_a_gigatoken_that_gives_other_tokens_is_not_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "naïve it's 12 " * 3000
    expected = SPLITTING.encode(text)
    gigatoken = find_gigatoken()
    made = gigatoken.Tokenizer.from_json(json.dumps({**PARTS, "model": MODEL}))
    monkeypatch.setattr(gigatoken.Tokenizer, "from_json", lambda _: made)
    errors.warn_once.cache_clear()
    again = BytePairTokenizer(SPLITTING.vocabulary, SPLITTING.merges)
    assert np.array_equal(again.encode(text), expected)
    assert "gigatoken gives other tokens here than tiktoken" in capsys.readouterr().err
