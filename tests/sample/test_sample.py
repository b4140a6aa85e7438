"""Samples: the prompt, then what the model writes."""

import dataclasses
from pathlib import Path

import pytest

from nanogpt2.base.system.errors import DataError
from nanogpt2.config.config import Config
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.sample import read_prompt, sample_texts, write_samples
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer


@pytest.fixture
def model(tiny: Config) -> GPT:
    return GPT(tiny)


def test_samples_go_on_from_the_prompt_and_each_has_its_seed(tiny: Config, model: GPT) -> None:
    tokenizer = CharTokenizer("abcdef")
    knobs = dataclasses.replace(tiny.sample, num_samples=3, max_new_tokens=30)
    texts = sample_texts(model, tokenizer, "fed", knobs)
    assert len(set(texts)) == 3
    assert all(text.startswith("fed") and len(text) == 33 for text in texts)
    assert all(set(text) <= set("abcdef") for text in texts)  # rows without a token are not drawn
    later = dataclasses.replace(knobs, num_samples=1, seed=knobs.seed + 2)
    assert sample_texts(model, tokenizer, "fed", later) == texts[2:]


def test_an_empty_prompt_starts_from_a_newline_that_is_not_shown(tiny: Config, model: GPT) -> None:
    knobs = dataclasses.replace(tiny.sample, num_samples=1, max_new_tokens=5, temperature=0.0)
    tokenizer = CharTokenizer("ab\n")
    (text,) = sample_texts(model, tokenizer, "", knobs)
    assert sample_texts(model, tokenizer, "\n", knobs) == ["\n" + text]


def test_a_vocabulary_without_newline_can_start_too(tiny: Config, model: GPT) -> None:
    knobs = dataclasses.replace(tiny.sample, num_samples=1, max_new_tokens=5)
    assert len(sample_texts(model, CharTokenizer("ab"), "", knobs)[0]) == 5


def test_an_unknown_character_in_the_prompt_is_named(tiny: Config, model: GPT) -> None:
    with pytest.raises(DataError, match=r"does not know the character 'é' \(U\+00E9\), number 3"):
        sample_texts(model, CharTokenizer("abc"), "abé", tiny.sample)


def test_a_byte_model_writes_any_prompt(tiny: Config, model: GPT) -> None:
    model = GPT({**tiny.to_dict(), "vocab_size": 256})
    knobs = dataclasses.replace(tiny.sample, num_samples=1, max_new_tokens=9)
    assert sample_texts(model, ByteTokenizer(), "日本🙂", knobs)[0].startswith("日本🙂")


def test_the_prompt_comes_from_the_text_or_else_from_the_file(tiny: Config) -> None:
    Path("p.txt").write_text("one\ntwo\n", encoding="utf-8")
    from_file = dataclasses.replace(tiny.sample, prompt=None, prompt_file="p.txt")
    assert read_prompt(from_file) == "one\ntwo"
    assert read_prompt(dataclasses.replace(from_file, prompt="")) == ""


def test_writing_samples_replaces_the_folder(text: str) -> None:
    write_samples(Path("samples"), ["a", "b"])
    write_samples(Path("samples"), ["c"])
    assert {p.name: p.read_text() for p in Path("samples").iterdir()} == {"sample_1.txt": "c\n"}


def test_a_prompt_is_brought_to_the_form_of_the_corpus(tiny: Config) -> None:
    knobs = dataclasses.replace(tiny.sample, prompt="cafe\u0301\r\n")
    assert read_prompt(knobs) == "caf\u00e9\n"
