"""Evaluation: a checkpoint on whole splits, each token predicted once."""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.checkpoint import Checkpoint, tokenizer_of
from nanogpt2.dataset import load_prepared_tokenizer, load_tokens, prepared_splits
from nanogpt2.errors import CheckpointError, DataError
from nanogpt2.files import rounded
from nanogpt2.metrics import Totals, summarise
from nanogpt2.model import GPT
from nanogpt2.tokenizer import TokenArray, Tokenizer


def evaluate_tokens(
    model: GPT, tokens: TokenArray, tokenizer: Tokenizer, *, batch_size: int
) -> tuple[Totals, list[float]]:
    """Return totals over all of `tokens`, and the mean loss at each position of the context.

    The text is cut into windows of block_size side by side, so that each token but the first,
    which nothing precedes, is predicted exactly once, from what precedes it in its window.
    """
    if len(tokens) < 2:
        raise DataError("a split of fewer than 2 tokens cannot be evaluated: use more text")
    model.eval()
    nats = torch.zeros(model.config.block_size, dtype=torch.float64)
    counts = torch.zeros(model.config.block_size, dtype=torch.int64)
    totals = Totals(bytes=tokenizer.count_bytes(tokens[1:]))
    for batch in windows(tokens, model.config.block_size, batch_size):
        loss, correct = token_losses(model, batch.to(model.wte.weight.device))
        T = loss.shape[1]
        nats[:T] += loss.sum(dim=0)
        counts[:T] += loss.shape[0]
        totals.correct += correct
    totals.nats, totals.tokens = nats.sum().item(), int(counts.sum())
    used = counts > 0
    return totals, (nats[used] / counts[used]).tolist()


def windows(tokens: TokenArray, block_size: int, batch_size: int) -> Iterator[Tensor]:
    """Yield batches (B, T + 1) int64 that cover `tokens`; neighbours share one token.

    T is block_size but for the rest at the end, which comes alone.
    """
    n_whole = (len(tokens) - 1) // block_size
    for first in range(0, n_whole, batch_size):
        starts = np.arange(first, min(first + batch_size, n_whole)) * block_size
        window = tokens[starts[:, None] + np.arange(block_size + 1)]
        yield torch.from_numpy(window.astype(np.int64))
    rest = tokens[n_whole * block_size :]
    if len(rest) > 1:
        yield torch.from_numpy(rest.astype(np.int64))[None]


@torch.no_grad()
def token_losses(model: GPT, batch: Tensor) -> tuple[Tensor, int]:
    """Return each prediction's loss in nats, (B, T) float64 on the CPU, and how many were right."""
    idx, targets = batch[:, :-1], batch[:, 1:]
    logits = model(idx).float()
    loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    correct = (logits.argmax(dim=-1) == targets).sum()
    return loss.view(targets.shape).cpu().double(), int(correct)


def evaluate_splits(
    checkpoint: Checkpoint, data: Path, *, batch_size: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the metrics of each held-out split in `data`, and losses by position as rows.

    Raises CheckpointError where the checkpoint was trained with another tokenizer.
    """
    tokenizer = tokenizer_of(checkpoint, data / "tokenizer.json")
    if tokenizer.to_dict() != load_prepared_tokenizer(data).to_dict():
        raise CheckpointError(
            f"the checkpoint was trained with another tokenizer than that of {data};"
            " run `dvc repro`, or give --data the folder it was trained on"
        )
    figures, columns = {}, {}
    for split in prepared_splits(data)[1:]:
        totals, columns[f"{split}_loss"] = evaluate_tokens(
            checkpoint.model, load_tokens(data, split), tokenizer, batch_size=batch_size
        )
        figures[split] = summarise(totals)
    rows = [
        {"position": position} | dict(zip(columns, map(rounded, losses), strict=True))
        for position, losses in enumerate(zip_longest(*columns.values(), fillvalue=0.0))
    ]
    return figures, rows


def describe(figures: dict[str, Any]) -> str:
    """Return the metrics of each split in a line."""
    return "\n".join(
        f"{split}: loss {row['loss']:.4f} nats/token, perplexity {row['perplexity']:.3f},"
        f" {row['bits_per_byte']:.4f} bits/byte, accuracy {row['accuracy']:.1%},"
        f" {row['tokens']:,} tokens"
        for split, row in figures.items()
    )
