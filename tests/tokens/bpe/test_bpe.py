"""GPT-2's byte pair encoding: any text comes back, and the same tokens as others give."""

import doctest
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_vocabulary import gpt2_files, gpt2_tokenizer
from hostile import HARD, TEXTS
from hypothesis import given

from nanogpt2.base.system.errors import CheckpointError, DataError, ExtraError
from nanogpt2.tokens.bpe import bpe
from nanogpt2.tokens.bpe.bpe import BYTE_CHARACTERS, BytePairTokenizer
from nanogpt2.tokens.bpe.merges import train_from_texts
from nanogpt2.tokens.tokenizer import load_tokenizer

MERGES = ["t h", "Ġ th", "th e", "Ġth e", "Ã ©", "Ċ Ċ", "Ġ Ġ", "' s", "Ã ¨"]
# numbers that are not in the order of the merges, as other programs give them
SMALL = BytePairTokenizer(
    ["<|endoftext|>", *(merge.replace(" ", "") for merge in reversed(MERGES)), *BYTE_CHARACTERS],
    MERGES,
    ["<|endoftext|>"],
)


@given(HARD)
def test_any_text_comes_back(text: str) -> None:
    tokens = SMALL.encode(text)
    assert SMALL.decode(tokens) == SMALL.decode(tokens.tolist()) == text
    assert b"".join(map(SMALL.token_bytes, tokens.tolist())) == text.encode()
    assert SMALL.count_bytes(tokens) == len(text.encode())
    assert (tokens < SMALL.size).all()


def test_gpt2_gives_the_tokens_that_it_is_known_for() -> None:
    tokenizer = gpt2_tokenizer()
    assert tokenizer.size == 50257
    tokens = tokenizer.encode("Hello, I'm a language model,")
    assert tokens.tolist() == [15496, 11, 314, 1101, 257, 3303, 2746, 11]
    assert tokens.dtype == np.uint16


def reference(tokenizer: BytePairTokenizer) -> Any:
    """Return the encoder of `tokenizers` for the same vocabulary and merges."""
    tokenizers = pytest.importorskip("tokenizers")
    numbers = {token: number for number, token in enumerate(tokenizer.vocabulary)}
    merges = [tuple(merge.split(" ")) for merge in tokenizer.merges]
    encoder = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=numbers, merges=merges))
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    encoder.pre_tokenizer = level
    return encoder


@cache
def small_reference() -> Any:
    return reference(SMALL)


@given(HARD)
def test_tokens_are_those_of_tokenizers(text: str) -> None:
    assert SMALL.encode(text).tolist() == small_reference().encode(text).ids


def test_tokens_of_gpt2_are_those_of_tokenizers() -> None:
    theirs = reference(gpt2_tokenizer())
    for text in TEXTS:
        assert gpt2_tokenizer().encode(text).tolist() == theirs.encode(text).ids, text[:30]


def test_tokens_are_those_of_tiktoken() -> None:
    load = pytest.importorskip("tiktoken.load")
    tiktoken = sys.modules["tiktoken"]
    encoder, merges = map(str, gpt2_files())
    ranks = load.data_gym_to_mergeable_bpe_ranks(vocab_bpe_file=merges, encoder_json_file=encoder)
    pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    theirs = tiktoken.Encoding(
        "gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 50256}
    )
    for text in TEXTS:
        assert gpt2_tokenizer().encode(text).tolist() == theirs.encode_ordinary(text), text[:30]


def test_tokens_of_a_trained_vocabulary_are_those_of_tokenizers() -> None:
    trained = train_from_texts(TEXTS, 600)
    theirs = reference(trained)
    for text in TEXTS:
        assert trained.encode(text).tolist() == theirs.encode(text).ids, text[:30]


def test_a_million_spaces_before_a_word_are_no_error() -> None:
    text = "a" + " " * 1_000_000 + "the " + "\n" * 1_000_000
    assert SMALL.decode(SMALL.encode(text)) == text


def test_a_special_token_in_a_text_is_text() -> None:
    assert SMALL.decode([0]) == "<|endoftext|>"
    assert 0 not in SMALL.encode("<|endoftext|>")
    assert SMALL.token_bytes(0) == b"<|endoftext|>"


def test_half_a_character_is_shown_as_such_and_counted_as_its_bytes() -> None:
    token = SMALL.vocabulary.index("Ã")
    assert SMALL.decode([token]) == "\ufffd"
    assert (SMALL.token_bytes(token), SMALL.count_bytes(np.array([token] * 2))) == (b"\xc3", 2)


def test_a_tokenizer_survives_json() -> None:
    loaded = load_tokenizer(json.loads(json.dumps(SMALL.to_dict())))
    assert (loaded.name, loaded.size) == ("bpe", SMALL.size)
    assert loaded.to_dict() == SMALL.to_dict()
    assert np.array_equal(loaded.encode("the café's"), SMALL.encode("the café's"))


def test_half_a_surrogate_pair_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match=r"U\+DC80\), number 3 of the text"):
        SMALL.encode("ab\udc80")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"vocabulary": [*BYTE_CHARACTERS[1:]]}, "vocabulary lacks 'Ā'"),
        ({"vocabulary": [*BYTE_CHARACTERS, "a"]}, "vocabulary has a token twice"),
        ({"vocabulary": [*BYTE_CHARACTERS, "a b"]}, "vocabulary has 'a b'"),
        ({"vocabulary": [*BYTE_CHARACTERS, ""]}, "vocabulary has ''"),
        ({"vocabulary": [*BYTE_CHARACTERS, 7]}, "not lists of texts"),
        ({"vocabulary": 7}, "iterable"),
        ({"merges": ["a b"]}, "merges has 'a b'"),
        ({"merges": ["ab"]}, "merges has 'ab'"),
        ({"merges": ["a b", "a b"]}, "an entry twice"),
        ({"special": ["<end>"]}, "vocabulary lacks '<end>'"),
        ({"special": ["a"]}, "special has the token of a byte"),
        ({"extra": 1}, "extra"),
    ],
)
def test_what_is_no_byte_pair_tokenizer_is_refused(change: dict[str, Any], found: str) -> None:
    data = {"name": "bpe", "vocabulary": [*BYTE_CHARACTERS], "merges": [], "special": []}
    with pytest.raises(CheckpointError, match=f"^not a tokenizer: .*{found}.*; known: char, "):
        load_tokenizer({**data, **change})


def test_without_tiktoken_texts_are_decoded_and_one_line_says_what_encodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    loaded = load_tokenizer(SMALL.to_dict())
    assert loaded.decode([SMALL.vocabulary.index("Ġthe")]) == " the"
    with pytest.raises(ExtraError, match=r"tiktoken is not installed: .*nanogpt2\[bpe\]"):
        loaded.encode("a")


def test_the_module_does_without_torch() -> None:
    assert "torch" not in Path(bpe.__file__).read_text(encoding="utf-8")


def test_the_example_in_the_docstring_is_right() -> None:
    failed, attempted = doctest.testmod(bpe)
    assert attempted
    assert not failed
