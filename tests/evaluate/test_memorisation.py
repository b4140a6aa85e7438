"""Memorisation: copies in what a model writes are found, and its own words are not."""

import dataclasses
import string
from pathlib import Path

import pytest
import torch

from nanogpt2.config.config import Config, get_config
from nanogpt2.evaluate.memorisation import (
    check_memorisation,
    draw_texts,
    find_copies,
    list_stretches,
)
from nanogpt2.model.checkpoint import Checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.tokens.tokenizer import CharTokenizer, Tokenizer

SOURCE = "".join(
    f"Line {number} of the training text, unlike each other.\n" for number in range(99)
)


def test_planted_copies_are_found() -> None:
    planted = SOURCE[1000:1120]
    samples = ["XXXX" + planted + "YYYY", "Z" * 128]
    [copies] = find_copies([samples], [SOURCE])
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


ALPHABET = string.ascii_letters + string.digits[:8]
TRAINED, HELD_OUT = ALPHABET * 40, ALPHABET[::-1] * 10


@torch.no_grad()
def make_parrot(tiny: Config, tokenizer: Tokenizer) -> GPT:
    """Return a model that writes the alphabet on and on, whatever it starts from."""
    model = GPT(get_config({**tiny.to_dict(), "tied_head": False}))
    for name, weight in model.named_parameters():
        if "c_proj" in name or "wpe" in name:
            weight.zero_()  # only a token itself decides on the next one
    tokens = torch.from_numpy(tokenizer.encode(ALPHABET)).long()
    model.lm_head.weight.zero_()
    model.lm_head.weight[tokens.roll(-1)] = 10 * model.ln_f(model.wte.weight)[tokens]
    return model


@pytest.mark.parametrize("copied", [False, True])
def test_a_model_that_repeats_its_training_text_is_caught(tiny: Config, copied: bool) -> None:
    Path("text.txt").write_text(TRAINED + HELD_OUT, encoding="utf-8")
    prepare(Path("text.txt"), Path("data"), tokenizer="char", vocab_size=64, fractions=(0.2, 0.0))
    knobs = dataclasses.replace(tiny.evaluate, memorisation_samples=3, memorisation_tokens=200)
    tokenizer = CharTokenizer.train(TRAINED)
    model = make_parrot(tiny, tokenizer) if copied else GPT(tiny)
    figures, listed = check_memorisation(Checkpoint(model, tokenizer, {}), Path("data"), knobs)
    assert figures["samples"]["copied_windows"] == float(copied)
    assert figures["samples"]["longest"] == max(figures["samples"]["longest_by_sample"])
    assert (figures["samples"]["longest"] == 200) == copied
    assert len(figures["samples"]["longest_by_sample"]) == 3
    assert figures["validation_text"]["longest"] == 1
    assert f"{figures['samples']['longest']} characters" in listed
