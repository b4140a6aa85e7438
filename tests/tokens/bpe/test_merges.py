"""Training of byte pair encodings: the merges are those of `tokenizers`, however words come."""

import doctest
import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.base.system.errors import DataError
from nanogpt2.tokens.bpe import merges, words
from nanogpt2.tokens.bpe.bpe import END_OF_TEXT
from nanogpt2.tokens.bpe.merges import learn_merges, train_from_texts, train_from_words
from nanogpt2.tokens.bpe.words import count_words
from nanogpt2.tokens.tokenizer import load_tokenizer, train_tokenizer

TEXT = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age"
    " of foolishness. Ça va? naïve cafés; 日本語と日本 — 1859, 1859!\n\n\tbanana"
    " bananas  aaaa aaaaa\n"
)
FEW = st.text(st.sampled_from("aab é\n'"), max_size=60)


def merges_of_tokenizers(text: str, vocab_size: int) -> list[str]:
    """Return the merges that `tokenizers` learns from the same text."""
    library = pytest.importorskip("tokenizers")
    level = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs = library.Tokenizer(library.models.BPE())
    theirs.pre_tokenizer = level
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=level.alphabet(), show_progress=False
    )
    theirs.train_from_iterator([text], trainer)
    return [" ".join(pair) for pair in json.loads(theirs.to_str())["model"]["merges"]]


def test_merges_are_those_of_tokenizers() -> None:
    trained = train_from_texts([TEXT], 420)
    assert trained.merges == merges_of_tokenizers(TEXT, 420)
    assert trained.vocabulary[:3] == ["!", '"', "#"]  # as GPT-2 numbers them


@given(FEW)
def test_merges_of_runs_are_those_of_tokenizers(text: str) -> None:
    assert train_from_texts([text], 300).merges == merges_of_tokenizers(text, 300)


@given(st.lists(FEW, max_size=5), st.randoms(use_true_random=False))
def test_neither_the_order_of_texts_nor_that_of_words_matters(
    texts: list[str], chance: random.Random
) -> None:
    expected = train_from_texts(texts, 290, ["<|a|>"]).to_dict()
    chance.shuffle(texts)
    assert train_from_texts(iter(texts), 290, ["<|a|>"]).to_dict() == expected
    counted = list(sum(map(count_words, texts), Counter()).items())
    chance.shuffle(counted)
    assert train_from_words(dict(counted), 290, ["<|a|>"]).to_dict() == expected


@given(st.text(), st.integers(256, 300))
def test_a_trained_tokenizer_gives_any_text_back(text: str, vocab_size: int) -> None:
    trained = train_tokenizer("bpe", [TEXT, text], vocab_size=vocab_size)
    assert trained.size == vocab_size
    assert trained.decode(trained.encode(text)) == text
    assert load_tokenizer(json.loads(json.dumps(trained.to_dict()))).to_dict() == trained.to_dict()


def test_special_tokens_come_last_and_count() -> None:
    trained = train_tokenizer("bpe", TEXT, vocab_size=300, special=[END_OF_TEXT])
    assert trained.size == 300
    assert trained.token_bytes(299) == END_OF_TEXT.encode()
    assert 299 not in trained.encode(END_OF_TEXT)


def test_there_are_fewer_tokens_where_no_pairs_are_left() -> None:
    trained = train_from_texts(["abab ab"], 1000, [END_OF_TEXT])
    assert trained.merges == ["a b", "Ġ ab", "ab ab"]
    assert trained.size == 256 + 3 + 1
    assert train_from_texts([], 1000).size == 256


def test_too_small_a_vocabulary_is_refused_with_the_size_needed() -> None:
    with pytest.raises(DataError, match=r"^vocab_size: found 256; allowed: at least 257 .*<\|x\|>"):
        train_from_texts(["text"], 256, ["<|x|>"])


def test_of_very_many_words_the_commonest_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merges, "MOST_BYTES", 7)
    counts = {b"xy": 3, b"ab": 5, b"cde": 3, b"fg": 1}
    kept = {b"ab": 5, b"cde": 3, b"xy": 3}
    assert dict(merges.keep_commonest(counts)) == kept
    assert dict(merges.keep_commonest(dict(reversed(counts.items())))) == kept
    assert len(list(learn_merges(counts, 100))) == 4


def test_the_examples_in_the_docstrings_are_right() -> None:
    for module in (merges, words):
        failed, attempted = doctest.testmod(module)
        assert attempted
        assert not failed
