"""The law: what validation loss a run will reach, from what hundreds of runs reached.

A Gaussian process (Rasmussen & Williams 2006) over the logarithm of the loss in nats a character:
a linear part, a smooth one, and one that runs on the same text share, so that runs on the very text
say more of the next than all others do. `runs.csv` beside this module has the runs,
`law.json` what was fitted to them; benchmarks/laws.py makes the first and benchmarks/fit_laws.py
the second.
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Columns = Mapping[str, Any]  # numbers or arrays of one length, by name

RUNS = Path(__file__).parent / "runs.csv"
LAW = Path(__file__).parent / "law.json"
FIGURES = "order_2", "order_4", "order_6", "fewer_4"  # of a text, that the law reads
PILOT = "pilot_75", "pilot_150", "pilot_300"


def features(columns: Columns) -> dict[str, Any]:
    """Return by name what the law reads of runs.

    `columns` has the choice's parts, vocab_size, the training text's train_tokens and characters,
    its figures and the pilot's losses.
    """
    log: Any = np.log
    width, layers, dropout = columns["width"], columns["layers"], columns["dropout"]
    characters_per_token = columns["characters"] / columns["train_tokens"]
    tokens = columns["steps"] * columns["batch"] * columns["block"]
    epochs = log(1 + tokens / columns["train_tokens"])
    return {
        "pilot": log(columns["pilot_300"]),
        "pilot_early": log(columns["pilot_300"] / columns["pilot_75"]),
        "pilot_late": log(columns["pilot_300"] / columns["pilot_150"]),
        "order_2": log(columns["order_2"]),
        "order_4": log(columns["order_4"]),
        "order_6": log(columns["order_6"]),
        "growth": log(columns["fewer_4"] / columns["order_4"]),
        "text": log(columns["characters"]),
        "weights": log(12 * layers * width**2),
        "width": log(width),
        "seen": log(tokens * characters_per_token),
        "steps": log(columns["steps"]),
        "epochs": epochs,
        "dropout": dropout,
        "dropout_epochs": dropout * epochs,
        "context": log(columns["block"] * characters_per_token),
        "bpe": np.where(np.asarray(columns["bpe"]) > 0, 1.0, 0.0),
        "characters_per_token": log(characters_per_token),
    }


class Fit(NamedTuple):
    """What is fitted: of each feature its mean, spread, length and weight; of the whole the rest.

    Lengths are in spreads, all others in logarithms of the loss.
    """

    means: Array
    spreads: Array
    lengths: Array
    weights: Array  # of the linear part
    smooth: float  # how far the smooth part goes
    shared: float  # how far what a text's runs share goes
    shared_length: float  # beside the lengths, of what a text's runs share
    offset: float  # of what a text's runs share alike
    noise: float
    mean: float


def covariance(fit: Fit, a: Array, b: Array, same: npt.NDArray[np.bool_]) -> Array:
    """Return (len(a), len(b)) covariances of scaled features; `same` says who share a text."""
    near_a, near_b = a / fit.lengths, b / fit.lengths
    squares = (near_a**2).sum(1)[:, None] + (near_b**2).sum(1) - 2 * near_a @ near_b.T
    far = np.sqrt(5 * squares.clip(min=0))  # Matern's of 5/2
    smooth = fit.smooth**2 * (1 + far + far**2 / 3) * np.exp(-far)
    own = fit.shared**2 * np.exp(-squares / (2 * fit.shared_length**2)) + fit.offset**2
    linear = (a * fit.weights**2) @ b.T
    covariances: Array = smooth + linear + np.where(same, own, 0.0)
    return covariances


@dataclass(frozen=True)
class Law:
    """Runs that are known, and what was fitted to them."""

    fit: Fit
    known: Array  # scaled features of the runs
    losses: Array  # logarithms
    texts: npt.NDArray[np.str_]
    features: Callable[[Columns], dict[str, Any]] = features  # what it reads of a run

    def predict(self, columns: Columns, text: str = "") -> tuple[Array, Array]:
        """Return the losses in nats a character of runs on `text`, and how far off each may be.

        The latter is a standard deviation as a share of the loss.
        """
        asked = self.scale(columns)
        same = np.broadcast_to(self.texts == text, (len(asked), len(self.texts)))
        across = covariance(self.fit, asked, self.known, same)
        means = self.fit.mean + across @ self._weights
        explained = self._inverse_root @ across.T
        fit = self.fit
        own = fit.smooth**2 + fit.shared**2 + fit.offset**2 + (asked**2) @ fit.weights**2
        variance = (own - (explained**2).sum(0)).clip(min=0) + fit.noise**2
        return np.exp(means), np.sqrt(variance)

    def given(self, columns: Columns, losses: Sequence[float], text: str = "") -> "Law":
        """Return the law with runs on `text` that reached `losses` known too."""
        known = np.concatenate([self.known, self.scale(columns)])
        texts = np.concatenate([self.texts, np.full(len(losses), text)])
        logarithms = np.concatenate([self.losses, np.log(losses)])
        return replace(self, known=known, losses=logarithms, texts=texts)

    def scale(self, columns: Columns) -> Array:
        """Return features (runs, features), each with mean 0 and spread 1 over known runs."""
        parts = np.broadcast_arrays(*self.features(columns).values())
        raw = np.stack([np.atleast_1d(np.asarray(part, np.float64)) for part in parts], axis=1)
        scaled: Array = (raw - self.fit.means) / self.fit.spreads
        return scaled

    def reaches(self, columns: Columns) -> npt.NDArray[np.bool_]:
        """Return for each run whether its features lie between those of known runs."""
        asked = self.scale(columns)
        low, high = self.known.min(0), self.known.max(0)
        inside: npt.NDArray[np.bool_] = ((asked >= low) & (asked <= high)).all(1)
        return inside

    @cached_property
    def _inverse_root(self) -> Array:
        same = self.texts[:, None] == self.texts
        within = covariance(self.fit, self.known, self.known, same)
        root = np.linalg.cholesky(within + self.fit.noise**2 * np.eye(len(self.known)))
        return np.linalg.inv(root).astype(np.float64)

    @cached_property
    def _weights(self) -> Array:
        inverse = self._inverse_root
        weights: Array = inverse.T @ (inverse @ (self.losses - self.fit.mean))
        return weights


@cache
def read_law() -> Law:
    """Return the law as it was fitted."""
    columns, texts, losses = read_runs(RUNS)
    return make_law(LAW, features, columns, texts, losses)


def make_law(
    fitted: Path,
    features: Callable[[Columns], dict[str, Any]],
    columns: Columns,
    texts: npt.NDArray[np.str_],
    losses: Array,
) -> Law:
    """Return the law of the file `fitted`, which knows these runs and logarithms of losses."""
    content: dict[str, Any] = json.loads(fitted.read_text(encoding="utf-8"))
    by_feature: dict[str, dict[str, float]] = content.pop("features")
    assert list(by_feature) == list(features(columns))
    means, spreads, lengths, weights = (
        np.array([values[name] for values in by_feature.values()])
        for name in ("means", "spreads", "lengths", "weights")
    )
    fit = Fit(means, spreads, lengths, weights, **content)
    law = Law(fit, np.empty((0, len(by_feature))), losses, texts, features)
    return replace(law, known=law.scale(columns))


def read_runs(path: Path) -> tuple[dict[str, Array], npt.NDArray[np.str_], Array]:
    """Return columns of numbers, texts and logarithms of losses of a file of runs."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    texts = np.array([row.pop("text") for row in rows])
    columns = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    return columns, texts, np.log(columns.pop("loss"))
