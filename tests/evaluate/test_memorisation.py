"""Memorisation: copies in what a model writes are found, and its own words are not."""

import dataclasses
from pathlib import Path

import pytest
import torch

from nanogpt2.config.config import Config
from nanogpt2.evaluate.memorisation import (
    check_memorisation,
    draw_texts,
    find_copies,
    list_stretches,
)
from nanogpt2.model.checkpoint import Checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.text.overlap import character_codes
from nanogpt2.text.prepare import prepare
from nanogpt2.tokens.tokenizer import CharTokenizer, Tokenizer

SOURCE = "".join(
    f"Line {number} of the training text, unlike each other.\n" for number in range(99)
)


def test_planted_copies_are_found() -> None:
    planted = SOURCE[1000:1120]
    samples = ["XXXX" + planted + "YYYY", "Z" * 128]
    copies = find_copies(samples, character_codes(SOURCE))
    assert copies.stretches == [planted, ""]
    assert copies.lengths == [120, 0]
    assert copies.copied_windows == 71 / (2 * 79)  # 120 characters have 71 windows of 50
    assert copies.figures() == {"longest": 120, "copied_windows": round(71 / 158, 6)}


def test_the_list_shows_the_longest_copy_first_and_whole() -> None:
    listed = list_stretches(["of the", "unlike\neach other", ""])
    assert listed.index("--- sample 2: 17 characters ---\nunlike\neach other\n") < listed.index(
        "--- sample 1: 6 characters ---\nof the\n"
    )


@pytest.fixture
def tokenizer() -> Tokenizer:
    return CharTokenizer.train(SOURCE)


def test_texts_are_drawn_by_seed_and_leave_out_their_first_token(
    tiny: Config, tokenizer: Tokenizer
) -> None:
    model = GPT(tiny)

    def draw(seed: int) -> list[str]:
        return draw_texts(model, tokenizer, [1, 2], n_tokens=40, temperature=1.0, seed=seed)

    assert [len(text) for text in draw(1)] == [40, 40]
    assert draw(1) == draw(1) != draw(2)


class Parrot(GPT):
    """Writes the training text, from wherever the first token stands in it first."""

    def generate(
        self, idx: torch.Tensor, max_new_tokens: int, *_: object, **__: object
    ) -> torch.Tensor:
        tokens = CharTokenizer.train(SOURCE).encode(SOURCE).tolist()
        starts = [tokens.index(token) for token in idx[:, 0].tolist()]
        return torch.tensor([tokens[at : at + 1 + max_new_tokens] for at in starts])


@pytest.mark.parametrize(("writer", "copied"), [(GPT, 0.0), (Parrot, 1.0)])
def test_a_model_that_repeats_its_training_text_is_caught(
    tiny: Config, tokenizer: Tokenizer, writer: type[GPT], copied: float
) -> None:
    Path("text.txt").write_text(SOURCE, encoding="utf-8")
    prepare(Path("text.txt"), Path("data"), tokenizer="char", vocab_size=64, fractions=(0.2, 0.0))
    knobs = dataclasses.replace(tiny.evaluate, memorisation_samples=3, memorisation_tokens=200)
    model = Checkpoint(writer(tiny), tokenizer, {})
    figures, listed = check_memorisation(model, Path("data"), knobs)
    assert figures["samples"]["copied_windows"] == copied
    assert figures["samples"]["longest"] == max(figures["samples"]["longest_by_sample"])
    assert (figures["samples"]["longest"] == 200) == bool(copied)
    assert len(figures["samples"]["longest_by_sample"]) == 3
    assert 40 < figures["validation_text"]["longest"] < 60  # a line less its number
    assert f"{figures['samples']['longest']} characters" in listed
