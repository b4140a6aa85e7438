"""Evaluation: each token once, whatever the batch size and the stride."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.base.system.errors import CheckpointError, DataError, DeviceError
from nanogpt2.config.config import Config, get_config
from nanogpt2.evaluate.evaluate import evaluate_splits, evaluate_tokens, windows
from nanogpt2.evaluate.metrics import summarise
from nanogpt2.model.checkpoint import load_checkpoint, save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer


@pytest.fixture
def model(tiny: Config) -> GPT:
    model = GPT(tiny)
    with torch.no_grad():
        model.wte.weight.mul_(20)  # far from uniform
    return model


def by_hand(model: GPT, tokens: np.ndarray, stride: int = 16) -> tuple[float, int]:
    """Sum the loss token by token, each from what precedes it in the first window that has it."""
    nats, correct = 0.0, 0
    for at in range(1, len(tokens)):
        start = max(0, math.ceil((at - 16) / stride)) * stride
        context = torch.tensor(tokens[start:at].astype(np.int64))[None]
        probs = model.eval()(context)[0, -1].double().softmax(-1)
        nats -= math.log(probs[tokens[at]].item())
        correct += int(probs.argmax().item() == tokens[at])
    return nats, correct


@pytest.mark.parametrize("stride", [1, 5, 16])
@pytest.mark.parametrize("length", [2, 16, 17, 18, 100, 129])
def test_each_token_counts_once(model: GPT, length: int, stride: int) -> None:
    tokens = np.random.default_rng(0).integers(64, size=length).astype(np.uint16)
    score = evaluate_tokens(model, tokens, ByteTokenizer(), batch_size=3, stride=stride)
    nats, correct = by_hand(model, tokens, stride)
    assert score.totals.tokens == length - 1
    assert score.totals.correct == correct
    assert score.totals.nats == pytest.approx(nats, rel=1e-5)
    assert len(score.positions) == min(16, length - 1)


@given(
    length=st.integers(2, 200),
    block_size=st.integers(1, 30),
    stride=st.integers(1, 30),
    batch_size=st.integers(1, 9),
)
def test_windows_predict_each_token_once_with_the_context_that_stride_promises(
    length: int, block_size: int, stride: int, batch_size: int
) -> None:
    stride = min(stride, block_size)
    predicted: list[int] = []
    for batch, n_new in windows(np.arange(length, dtype=np.uint16), block_size, stride, batch_size):
        assert batch.shape[0] <= batch_size
        assert batch.shape[1] <= block_size + 1
        for row in batch.tolist():
            assert row == list(range(row[0], row[-1] + 1))
            for at in row[-n_new:]:
                assert at - row[0] >= min(at, block_size - stride + 1)
            predicted += row[-n_new:]
    assert predicted == list(range(1, length))


@pytest.mark.parametrize("stride", [None, 5])
def test_the_batch_size_changes_nothing(model: GPT, stride: int | None) -> None:
    tokens = np.random.default_rng(0).integers(64, size=1000).astype(np.uint16)
    losses = [
        evaluate_tokens(model, tokens, ByteTokenizer(), batch_size=size, stride=stride).totals.nats
        / 999
        for size in (1, 7, 64)
    ]
    assert max(losses) - min(losses) < 1e-6


def test_windows_lie_side_by_side_unless_told_and_never_further_apart(model: GPT) -> None:
    tokens = np.random.default_rng(0).integers(64, size=100).astype(np.uint16)
    scores = [
        evaluate_tokens(model, tokens, ByteTokenizer(), batch_size=4, stride=stride)
        for stride in (None, 16, 1000)
    ]
    assert scores[0] == scores[1] == scores[2]


def test_the_costly_tokens_share_the_loss_and_the_first_costs_most(model: GPT) -> None:
    text = "the \n quick 'brown' fox" * 20
    tokenizer = CharTokenizer.train(text)
    score = evaluate_tokens(model, tokenizer.encode(text), tokenizer, batch_size=4, stride=7)
    totals, rows = score.totals, score.tokens
    counts = {repr(character): text[1:].count(character) for character in set(text)}
    assert {row["token"]: row["count"] for row in rows} == counts
    assert sum(row["share_of_loss"] for row in rows) == pytest.approx(1, abs=1e-4)
    assert sum(row["loss"] * row["count"] for row in rows) == pytest.approx(totals.nats, rel=1e-5)
    right = sum(row["accuracy"] * row["count"] for row in rows)
    assert right == pytest.approx(totals.correct, abs=0.01)
    shares = [row["share_of_loss"] for row in rows]
    assert shares == sorted(shares, reverse=True)


def test_the_table_of_costly_tokens_stays_short_and_shows_bytes_that_are_no_text() -> None:
    model = GPT(get_config({"vocab_size": 256, "block_size": 16, "n_layer": 1, "n_embd": 16}))
    tokens = np.arange(256, dtype=np.uint16).repeat(2)
    rows = evaluate_tokens(model, tokens, ByteTokenizer(), batch_size=4).tokens
    assert len(rows) == 30
    tokens = np.array([65, 10, 233], np.uint16)
    rows = evaluate_tokens(model, tokens, ByteTokenizer(), batch_size=4).tokens
    assert {row["token"] for row in rows} == {r"'\n'", "token 233"}


def test_the_figures_follow_from_the_sums(model: GPT) -> None:
    text = "añb☃" * 30
    tokenizer = CharTokenizer.train(text)
    totals = evaluate_tokens(model, tokenizer.encode(text), tokenizer, batch_size=8).totals
    figures = summarise(totals)
    assert totals.bytes == len(text.encode()) - 1
    assert figures["loss"] == pytest.approx(totals.nats / 119, abs=1e-6)
    assert figures["perplexity"] == pytest.approx(math.exp(figures["loss"]), rel=1e-5)
    assert figures["bits_per_byte"] == pytest.approx(
        figures["loss"] * 119 / 209 / math.log(2), abs=1e-5
    )


def test_the_mean_of_the_losses_by_position_is_the_loss(model: GPT) -> None:
    tokens = np.random.default_rng(0).integers(64, size=16 * 5 + 1).astype(np.uint16)
    score = evaluate_tokens(model, tokens, ByteTokenizer(), batch_size=2)
    assert np.mean(score.positions) == pytest.approx(score.totals.nats / 80)


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


def test_without_memory_it_says_what_to_lower(model: GPT) -> None:
    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(refuse)
    tokens = np.zeros(100, np.uint16)
    with pytest.raises(DeviceError, match=r"out of memory; lower evaluate.batch_size"):
        evaluate_tokens(model, tokens, ByteTokenizer(), batch_size=3)
