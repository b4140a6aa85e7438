"""The recorded run: the curve and parameters of the last commit, beside which a run is seen."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.base.system.repository import committed_text
from nanogpt2.config import yaml12
from nanogpt2.config.config import Config, make_config
from nanogpt2.config.yaml12 import show

TEXT_KEYS = ("corpus", "tokenizer", "val_fraction", "test_fraction")  # losses compare where equal


@dataclass(frozen=True)
class RecordedRun:
    """The rows of a recorded run's evaluations, and in words what is changed since."""

    history: Sequence[Mapping[str, float]]
    changes: str


def read_recorded(config: Config, curve: Path, params: Path) -> RecordedRun | None:
    """Return the run whose `curve` and `params` git has in the last commit.

    None where there is none, or where it was one of another text or in other tokens.
    """
    rows, text = committed_text(curve), committed_text(params)
    if rows is None or text is None:
        return None
    try:
        before = make_config(yaml12.parse(text, name=params.name), name=params.name)
        history = [
            {"iter": float(row["iter"]), "val_loss": float(row["val_loss"])}
            for row in csv.DictReader(rows.splitlines())
        ]
    except (ConfigError, KeyError, TypeError, ValueError):  # of another version, or edited
        return None
    learnt = ("vocab_size",) if config.tokenizer == "bpe" else ()  # other tokens for each size
    if any(config[key] != before[key] for key in (*TEXT_KEYS, *learnt)):
        return None
    changes = list_changes(before.training_dict(), config.training_dict())
    return RecordedRun(history, ", ".join(changes))


def list_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the keys of `after` that were other `before`, as `learning_rate 0.008 -> 0.0005`."""
    return [
        f"{key} {show(before.get(key))} -> {show(after[key])}"
        for key in after
        if before.get(key) != after[key]
    ]


def val_loss_at(history: Sequence[Mapping[str, float]], step: float) -> float | None:
    """Return the validation loss after `step` steps, between two rows on the line that joins them.

    None before the first row and after the last.
    """
    for first, second in pairwise(history):
        if first["iter"] <= step <= second["iter"]:
            share = (step - first["iter"]) / (second["iter"] - first["iter"])
            return first["val_loss"] + share * (second["val_loss"] - first["val_loss"])
    return None
