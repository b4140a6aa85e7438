"""The law of ends: how far a run gets below the loss that half of its steps reach.

A Gaussian process as `laws` has it. Besides the run it reads how the loss fell from a quarter of
the steps to the half, and how far below it the loss on the training text is: a model that already
knows its text by heart has little left to learn. `ends.csv` beside this module has the runs,
`ends.json` what was fitted to them.
"""

import math
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nanogpt2.experiments.plan.laws import Columns, Law, features, make_law, read_runs

RUNS = Path(__file__).parent / "ends.csv"
LAW = Path(__file__).parent / "ends.json"
OF_RUNS = (
    *("growth", "text", "weights", "seen", "steps", "epochs", "dropout", "dropout_epochs"),
    *("context", "bpe"),
)
EXPECTED = 0.35  # how much the law that knows both starts says beside this one: they err apart
LEAST_APART = 1.4  # times as many steps as the quarter has, that the half has


class Start(NamedTuple):
    """What training with some of a run's steps reached, in nats a character."""

    steps: int
    loss: float  # on the validation text
    own: float  # on the training text


def end_features(columns: Columns) -> dict[str, Any]:
    """Return by name what the law reads of runs.

    Besides what `features` takes: the losses of half and of a quarter of the steps, and those on
    the training text, half_own and quarter_own.
    """
    log: Any = np.log
    known = features(columns)
    return {
        **{name: known[name] for name in OF_RUNS},
        "gain": log(columns["quarter"] / columns["half"]),
        "half_gap": log(columns["half"] / columns["half_own"]),
        "quarter_gap": log(columns["quarter"] / columns["quarter_own"]),
    }


@cache
def read_ends() -> Law:
    """Return the law as it was fitted; what it predicts are losses as shares of the half's."""
    columns, texts, losses = read_runs(RUNS)
    return make_law(LAW, end_features, columns, texts, losses - np.log(columns["half"]))


def predict_end(
    columns: Columns, quarter: Start, half: Start, *, expected: float
) -> tuple[float, float]:
    """Return the loss of the run of `columns`, and its standard deviation as a share of it.

    `expected` is what `laws` expects that was given both starts. These need not have just so many
    steps: what was gained is taken by the doubling.
    """
    gain = (quarter.loss / half.loss) ** (1 / math.log2(half.steps / quarter.steps))
    known = {
        "half": half.loss,
        "quarter": half.loss * gain,
        "half_own": half.own,
        "quarter_own": half.loss * gain * quarter.own / quarter.loss,
    }
    (share,), (spread,) = read_ends().predict({**columns, **known})
    doublings = math.log2(columns["steps"] / half.steps)
    loss = half.loss * float(share) ** doublings
    return float(loss ** (1 - EXPECTED) * expected**EXPECTED), float(spread)
