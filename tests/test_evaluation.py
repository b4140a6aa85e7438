"""Evaluation: each token once, whatever the batch size."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from nanogpt2.checkpoint import load_checkpoint, save_checkpoint
from nanogpt2.config import Config, get_config
from nanogpt2.errors import CheckpointError, DataError
from nanogpt2.evaluation import evaluate_splits, evaluate_tokens
from nanogpt2.metrics import summarise
from nanogpt2.model import GPT
from nanogpt2.preparation import prepare
from nanogpt2.tokenizer import ByteTokenizer, CharTokenizer


@pytest.fixture
def model(tiny: Config) -> GPT:
    model = GPT(tiny)
    with torch.no_grad():
        model.wte.weight.mul_(20)  # far from uniform
    return model


def by_hand(model: GPT, tokens: np.ndarray) -> tuple[float, int]:
    """Sum the loss token by token, each from the tokens before it in its window."""
    nats, correct = 0.0, 0
    for at in range(1, len(tokens)):
        start = (at - 1) // 16 * 16
        context = torch.tensor(tokens[start:at].astype(np.int64))[None]
        probs = model.eval()(context)[0, -1].double().softmax(-1)
        nats -= math.log(probs[tokens[at]].item())
        correct += int(probs.argmax().item() == tokens[at])
    return nats, correct


@pytest.mark.parametrize("length", [2, 16, 17, 18, 100, 129])
def test_each_token_counts_once(model: GPT, length: int) -> None:
    tokens = np.random.default_rng(0).integers(64, size=length).astype(np.uint16)
    totals, positions = evaluate_tokens(model, tokens, ByteTokenizer(), batch_size=3)
    nats, correct = by_hand(model, tokens)
    assert totals.tokens == length - 1
    assert totals.correct == correct
    assert totals.nats == pytest.approx(nats, rel=1e-5)
    assert len(positions) == min(16, length - 1)


def test_the_batch_size_changes_nothing(model: GPT) -> None:
    tokens = np.random.default_rng(0).integers(64, size=1000).astype(np.uint16)
    losses = [
        evaluate_tokens(model, tokens, ByteTokenizer(), batch_size=size)[0].nats / 999
        for size in (1, 7, 64)
    ]
    assert max(losses) - min(losses) < 1e-6


def test_the_figures_follow_from_the_sums(model: GPT) -> None:
    text = "añb☃" * 30
    tokenizer = CharTokenizer.train(text)
    totals, _ = evaluate_tokens(model, tokenizer.encode(text), tokenizer, batch_size=8)
    figures = summarise(totals)
    assert totals.bytes == len(text.encode()) - 1
    assert figures["loss"] == pytest.approx(totals.nats / 119, abs=1e-6)
    assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]), rel=1e-5)
    assert figures["bits_per_byte"] == pytest.approx(
        figures["loss"] * 119 / 209 / math.log(2), abs=1e-5
    )


def test_the_mean_of_the_losses_by_position_is_the_loss(model: GPT) -> None:
    tokens = np.random.default_rng(0).integers(64, size=16 * 5 + 1).astype(np.uint16)
    totals, positions = evaluate_tokens(model, tokens, ByteTokenizer(), batch_size=2)
    assert np.mean(positions) == pytest.approx(totals.nats / 80)


def test_one_token_is_too_few(model: GPT) -> None:
    with pytest.raises(DataError, match="fewer than 2 tokens"):
        evaluate_tokens(model, np.zeros(1, np.uint16), ByteTokenizer(), batch_size=1)


def test_a_checkpoint_of_another_text_is_refused(tiny: Config, text: str) -> None:
    Path("text.txt").write_text(text, encoding="utf-8")
    prepare(Path("text.txt"), Path("data"), tokenizer="char", vocab_size=64, fractions=(0.1, 0.1))
    config = get_config({**tiny.to_dict(), "corpus": "text.txt"})
    save_checkpoint(
        Path("other.pt"),
        GPT(config).state_dict(),
        config,
        tokenizer=CharTokenizer("abc"),
        origin={},
    )
    loaded = load_checkpoint(Path("other.pt"), device=torch.device("cpu"))
    with pytest.raises(CheckpointError, match="trained with another tokenizer than that of data"):
        evaluate_splits(loaded, Path("data"), batch_size=4)
