"""Evaluation: a checkpoint on whole splits, each token predicted once."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.base.screen.screen import phase
from nanogpt2.base.system.arguments import whole_number
from nanogpt2.base.system.errors import CheckpointError, DataError, DeviceError
from nanogpt2.base.system.files import rounded
from nanogpt2.base.system.heap import keep_memory
from nanogpt2.decode.ensemble.checkpoints import Trained, tokenizer_of
from nanogpt2.decode.ensemble.ensemble import Model
from nanogpt2.device.memory import is_out_of_memory
from nanogpt2.device.threads import share_cores
from nanogpt2.evaluate.metrics import Totals, summarise
from nanogpt2.evaluate.parts import Part, choose_parts, count_bytes, largest_token
from nanogpt2.model.modes import evaluating
from nanogpt2.tokens.bpe.arrays import TokenArray
from nanogpt2.tokens.dataset import (
    as_token_array,
    load_prepared_tokenizer,
    load_tokens,
    prepared_splits,
    text_of_split,
)
from nanogpt2.tokens.tokenizer import Tokenizer

Positions = npt.NDArray[np.int64]

COSTLY_TOKENS = 30  # rows of the table of tokens
DIGITS = 12  # of the SHA-256 of a split's text, in its figures


@dataclass(frozen=True)
class Score:
    """What a model makes of a text: sums, mean losses in nats by position, costly tokens."""

    totals: Totals
    positions: list[float]  # over all windows, those parts too that only give context
    tokens: list[dict[str, Any]]  # rows of `costly_tokens`


@dataclass(frozen=True)
class Evaluation:
    """Metrics by split, and rows of the tables: losses by position, costly tokens of val."""

    figures: dict[str, Any]
    positions: list[dict[str, Any]]
    tokens: list[dict[str, Any]]


class Tally:
    """Sums of losses (nats), predictions and right ones over bins: positions, or tokens."""

    def __init__(self, bins: int) -> None:
        self.nats = torch.zeros(bins, dtype=torch.float64)
        self.counts = torch.zeros(bins, dtype=torch.int64)
        self.correct = torch.zeros(bins, dtype=torch.int64)

    def add(self, bins: Tensor, nats: Tensor, correct: Tensor) -> None:
        """Add predictions, each with its bin; the three have the same shape."""
        self.nats.index_add_(0, bins.flatten(), nats.flatten())
        self.counts.index_add_(0, bins.flatten(), torch.ones_like(bins.flatten()))
        self.correct.index_add_(0, bins.flatten(), correct.flatten())


def evaluate_tokens(
    model: Model,
    tokens: TokenArray,
    tokenizer: Tokenizer,
    *,
    batch_size: int,
    stride: int | None = None,
    max_tokens: int | None = None,
    name: str = "evaluating",
    take: Callable[[Tensor], object] | None = None,
) -> Score:
    """Predict each of `tokens` but the first, which nothing precedes, exactly once.

    It is shown by `name`. `take` is given the losses in nats, some at a time, float64, in an order
    that depends on the sizes alone.

    With `max_tokens`, parts of more tokens than that are predicted (`choose_parts`), each as if it
    were all.

    Windows of block_size begin `stride` tokens apart, or side by side; where they overlap, only
    the later tokens of a window count, so that each has block_size - stride tokens of context and
    more, as far as the text has them. Raises DataError for fewer than 2 tokens, and for tokens that
    the model or the tokenizer does not know.
    """
    tokens = as_token_array(tokens, name="the split")
    if len(tokens) < 2:
        raise DataError("a split of fewer than 2 tokens cannot be evaluated: use more text")
    batch_size = whole_number("batch_size", batch_size, least=1)
    if max_tokens is not None:
        max_tokens = whole_number("max_tokens", max_tokens, least=1)
    block_size = model.config.block_size
    parts = choose_parts(len(tokens), block_size, max_tokens)
    known = min(tokenizer.size, model.config.vocab_size)
    if (largest := largest_token(tokens, parts)) >= known:
        raise DataError(f"the split has the token {largest}; allowed: from 0 to {known - 1}")
    stride = block_size if stride is None else whole_number("stride", stride, least=1)
    share_cores()
    keep_memory()
    by_position, by_token = Tally(block_size), Tally(tokenizer.size)
    n_predictions = sum(part.end - part.start - 1 for part in parts)
    with evaluating(model), phase(name, n_predictions, "tokens") as bar:
        for batch, n_new in windows(
            tokens, block_size, min(stride, block_size), batch_size, parts=parts
        ):
            nats, correct = predict_in_memory(
                model, batch, advice="lower evaluate.batch_size, or use device: cpu"
            )
            by_position.add(torch.arange(nats.shape[1]).expand(nats.shape), nats, correct)
            by_token.add(batch[:, -n_new:], nats[:, -n_new:], correct[:, -n_new:])
            if take is not None:
                take(nats[:, -n_new:].flatten())
            bar.add(len(batch) * n_new)
    totals = Totals(
        nats=by_token.nats.sum().item(),
        tokens=int(by_token.counts.sum()),
        correct=int(by_token.correct.sum()),
        bytes=count_bytes(tokens, parts, tokenizer),
    )
    used = by_position.counts > 0
    positions = (by_position.nats[used] / by_position.counts[used]).tolist()
    return Score(totals, positions, costly_tokens(by_token, tokenizer))


def windows(
    tokens: TokenArray,
    block_size: int,
    stride: int,
    batch_size: int,
    *,
    parts: Sequence[Part] | None = None,
) -> Iterator[tuple[Tensor, int]]:
    """Yield batches (B, T + 1) int64 and how many of the T predictions in each row are new.

    T is block_size but for the rest at the end of each part, or of `tokens`.
    """
    parts = [Part(0, len(tokens))] if parts is None else parts
    firsts: list[int] = []
    others: list[Positions] = []
    rests: dict[tuple[int, int], list[int]] = {}  # (T, how many are new) -> where they begin
    for start, end in parts:
        starts = np.arange(start + block_size, end, stride) - block_size  # of whole windows
        firsts += starts[:1].tolist()
        others.append(starts[1:])
        predicted = starts[-1] + block_size if len(starts) else start
        if predicted < end - 1:
            rest = start + len(starts) * stride
            rests.setdefault((end - 1 - rest, end - 1 - int(predicted)), []).append(rest)
    groups = [(block_size, block_size, np.array(firsts, dtype=np.int64))]
    groups += [(block_size, stride, np.concatenate(others))]
    groups += [(length, n_new, np.array(at)) for (length, n_new), at in rests.items()]
    for length, n_new, group in groups:
        for first in range(0, len(group), batch_size):
            at = group[first : first + batch_size, None] + np.arange(length + 1)
            yield torch.from_numpy(tokens[at].astype(np.int64)), n_new


def predict_in_memory(model: Model, batch: Tensor, *, advice: str) -> tuple[Tensor, Tensor]:
    """Return what `predict` returns; DeviceError with `advice` where memory runs out."""
    try:
        return predict(model, batch.to(model.wte.weight.device))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(f"out of memory; {advice}") from error


@torch.no_grad()
def predict(model: Model, batch: Tensor) -> tuple[Tensor, Tensor]:
    """Return of each prediction in `batch` (B, T + 1) its loss in nats, and 1 where it was right.

    Both are (B, T) on the CPU, float64 and int64.
    """
    idx, targets = batch[:, :-1], batch[:, 1:]
    logits = model(idx).float()
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    correct = logits.argmax(dim=-1) == targets
    return loss.view(targets.shape).cpu().double(), correct.cpu().long()


def costly_tokens(tally: Tally, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Return a row for each of the 30 tokens whose summed loss is largest, the largest first."""
    total = max(tally.nats.sum().item(), 1e-300)  # a perfect model has no loss to share
    order = torch.sort(tally.nats, descending=True, stable=True).indices[:COSTLY_TOKENS]
    return [
        {
            "token": show_token(tokenizer, token),
            "count": count,
            "loss": rounded(tally.nats[token].item() / count),
            "share_of_loss": rounded(tally.nats[token].item() / total),
            "accuracy": rounded(int(tally.correct[token]) / count),
        }
        for token in order.tolist()
        if (count := int(tally.counts[token]))
    ]


def show_token(tokenizer: Tokenizer, token: int) -> str:
    r"""Return a token as a quoted text, such as `'e'` and `'\n'`, or its number if it is none."""
    text = tokenizer.decode([token])
    return f"token {token}" if "\ufffd" in text else repr(text)


def evaluate_splits(
    checkpoint: Trained,
    data: str | Path,
    *,
    batch_size: int,
    stride: int | None = None,
    max_tokens: int | None = None,
) -> Evaluation:
    """Return what a checkpoint, or several together, make of each held-out split in `data`.

    Of a split with more than `max_tokens` it is a part; the figures tell of how many tokens.

    Raises CheckpointError where the checkpoint was trained with another tokenizer.
    """
    tokenizer = tokenizer_of(checkpoint, Path(data, "tokenizer.json"))
    if tokenizer.to_dict() != load_prepared_tokenizer(data).to_dict():
        raise CheckpointError(
            f"the checkpoint was trained with another tokenizer than that of {data};"
            " run `dvc repro`, or give --data the folder it was trained on"
        )
    tokens = {split: load_tokens(data, split) for split in prepared_splits(data)[1:]}
    scores = {
        split: evaluate_tokens(
            checkpoint.model,
            array,
            tokenizer,
            batch_size=batch_size,
            stride=stride,
            max_tokens=max_tokens,
            name=split,
        )
        for split, array in tokens.items()
    }
    return Evaluation(
        figures={
            split: summarise(score.totals)
            | _tell_whole(score.totals, len(tokens[split]))
            | _name_text(data, split)
            for split, score in scores.items()
        },
        positions=position_rows({split: score.positions for split, score in scores.items()}),
        tokens=scores["val"].tokens,
    )


def _tell_whole(totals: Totals, n_tokens: int) -> dict[str, int]:
    """Return how many predictions the whole split has, where they are more than were made."""
    return {"of_tokens": n_tokens - 1} if totals.tokens < n_tokens - 1 else {}


def _name_text(data: str | Path, split: str) -> dict[str, str]:
    """Return which text figures are of; figures of another text cannot be compared with them."""
    text = text_of_split(data, split)
    return {} if text is None else {"text": text[:DIGITS]}


def position_rows(losses: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return a row for each position, with a column for each split."""
    columns = [f"{split}_loss" for split in losses]
    return [
        {"position": position}
        | {  # a short split has no loss at late positions: an empty cell
            column: "" if loss is None else rounded(loss)
            for column, loss in zip(columns, row, strict=True)
        }
        for position, row in enumerate(zip_longest(*losses.values()))
    ]


def count_tokens(figures: dict[str, Any]) -> int:
    """Return how many tokens of all splits were predicted."""
    return sum(row["tokens"] for row in figures.values())


def describe(figures: dict[str, Any]) -> str:
    """Return the metrics of each split in a line."""
    return "\n".join(
        f"{split}: loss {row['loss']:.4f} nats/token, perplexity {row['perplexity']:.3f},"
        f" {row['bits_per_byte']:.4f} bits/byte, accuracy {row['accuracy']:.1%},"
        f" {row['tokens']:,} tokens" + (f" of {row['of_tokens']:,}" if "of_tokens" in row else "")
        for split, row in figures.items()
    )
