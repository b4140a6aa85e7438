"""Tokenizers: text to tokens and back."""

import doctest
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.base.system.errors import CheckpointError, DataError
from nanogpt2.tokens import tokenizer
from nanogpt2.tokens.bpe.arrays import token_dtype
from nanogpt2.tokens.tokenizer import (
    TOKENIZERS,
    ByteTokenizer,
    CharTokenizer,
    load_tokenizer,
    train_tokenizer,
)

NAMES = st.sampled_from(sorted(TOKENIZERS))
HARD_TEXT = "naïve e\u0301 שלום 👩\u200d👩\u200d👧 \U0010ffff\x00\r\n"


@given(NAMES, st.text())
def test_any_text_comes_back(name: str, text: str) -> None:
    trained = train_tokenizer(name, text, vocab_size=256)
    tokens = trained.encode(text)
    assert trained.decode(tokens) == trained.decode(tokens.tolist()) == text
    assert (tokens < trained.size).all()


@given(NAMES, st.text())
def test_bytes_are_counted_as_utf8_has_them(name: str, text: str) -> None:
    trained = train_tokenizer(name, text, vocab_size=256)
    assert trained.count_bytes(trained.encode(text)) == len(text.encode("utf-8"))


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
@pytest.mark.parametrize(
    "character", ["\0", "\x7f", "\x80", "\u07ff", "\u0800", "\uffff", "\U00010000"], ids=ascii
)
def test_bytes_are_counted_at_the_bounds_of_utf8(character: str, name: str) -> None:
    trained = train_tokenizer(name, character, vocab_size=256)
    assert trained.count_bytes(trained.encode(character)) == len(character.encode("utf-8"))


@given(NAMES, st.text(), st.text())
def test_a_text_in_two_parts_has_the_tokens_of_both(name: str, start: str, end: str) -> None:
    trained = train_tokenizer(name, start + end, vocab_size=256)
    parts = np.concatenate([trained.encode(start), trained.encode(end)])
    assert np.array_equal(trained.encode(start + end), parts)


@given(NAMES, st.text())
def test_a_tokenizer_survives_json(name: str, text: str) -> None:
    trained = train_tokenizer(name, text, vocab_size=256)
    loaded = load_tokenizer(json.loads(json.dumps(trained.to_dict(), ensure_ascii=False)))
    assert (loaded.name, loaded.size) == (name, trained.size)
    assert np.array_equal(loaded.encode(text), trained.encode(text))


def test_char_has_one_token_a_character_in_code_point_order() -> None:
    trained = CharTokenizer.train(HARD_TEXT)
    assert trained.size == len(set(HARD_TEXT))
    assert len(trained.encode(HARD_TEXT)) == len(HARD_TEXT)
    assert trained.decode(range(trained.size)) == "".join(sorted(set(HARD_TEXT)))


def test_char_vocabularies_do_not_depend_on_the_order_of_the_text() -> None:
    assert CharTokenizer.train("abcab").to_dict() == CharTokenizer.train("cba").to_dict()


def test_byte_tokens_are_the_bytes_of_utf8() -> None:
    assert ByteTokenizer().encode(HARD_TEXT).tolist() == list(HARD_TEXT.encode("utf-8"))
    assert ByteTokenizer().decode([0xC3, 0xA9, 0xC3]) == "é\ufffd"


@pytest.mark.parametrize("unknown", ["b", "z", "\n", "é", "🙂", "\ud800", "\U0010ffff"], ids=ascii)
def test_an_unknown_character_is_named_with_its_place(unknown: str) -> None:
    trained = CharTokenizer.train("ac")
    with pytest.raises(DataError) as error:
        trained.encode(f"caca{unknown}ca{unknown}")
    message = str(error.value)
    assert "\n" not in message
    for part in (repr(unknown), f"U+{ord(unknown):04X}", "number 5", "2 characters"):
        assert part in message


def test_byte_refuses_half_a_surrogate_pair_in_one_line() -> None:
    with pytest.raises(DataError, match=r"U\+DC80\), number 3 of the text"):
        ByteTokenizer().encode("ab\udc80")


def test_no_known_character_is_an_error_with_the_empty_vocabulary() -> None:
    assert CharTokenizer("").encode("").tolist() == []
    with pytest.raises(DataError, match="knows 0 characters"):
        CharTokenizer("").encode("a")


@pytest.mark.parametrize(("n_characters", "dtype"), [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_the_file_type_grows_with_the_vocabulary(n_characters: int, dtype: type) -> None:
    points = [point for point in range(0x20000) if not 0xD800 <= point <= 0xDFFF]
    text = "".join(map(chr, points[:n_characters]))
    trained = CharTokenizer.train(text)
    tokens = trained.encode(text)
    assert tokens.dtype == dtype == token_dtype(trained.size)
    assert trained.decode(tokens) == text


@pytest.mark.parametrize(
    "data",
    [
        None,
        "char",
        [1],
        {},
        {"name": []},
        {"name": "bpe"},
        {"name": "char"},
        {"name": "char", "characters": "ab", "merges": []},
        {"name": "byte", "size": 256},
    ],
    ids=json.dumps,
)
def test_what_is_no_tokenizer_is_refused(data: Any) -> None:
    with pytest.raises(
        CheckpointError, match=rf"not a tokenizer: .*; known: {', '.join(TOKENIZERS)}"
    ):
        load_tokenizer(data)


def test_the_examples_in_the_docstrings_are_right() -> None:
    failed, attempted = doctest.testmod(tokenizer)
    assert attempted
    assert not failed
