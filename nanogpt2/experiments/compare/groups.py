"""Settings of several seeds: runs that differ by their seeds alone, their means and intervals."""

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanogpt2.experiments.compare.runs import Run
from nanogpt2.experiments.significance import t_quantile

BAND = 0.95  # the interval that holds the true mean over seeds with this probability
LOSSES = ("train_loss", "val_loss")


@dataclass(frozen=True)
class Group:
    """Runs of one setting with different seeds, at least two: where they are in the list of runs.

    `curve` has iter, and for each loss its mean and the `_low` and `_high` ends of its interval.
    """

    members: Sequence[int]
    curve: Mapping[str, Sequence[float]]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Return the groups; of two runs with the same seed, which are the same, one counts."""
    by_setting: dict[str, dict[Any, int]] = defaultdict(dict)
    for at, run in enumerate(runs):
        if run.setting and run.figures and run.params.get("seed") is not None:
            by_setting[run.setting].setdefault(run.params["seed"], at)
    return [
        Group([*seeds.values()], _mean_curve([runs[at].curve for at in seeds.values()]))
        for seeds in by_setting.values()
        if len(seeds) > 1
    ]


def _mean_curve(curves: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, list[float]]:
    """Return means and intervals at the steps that all `curves` have."""
    steps = [curve.get("iter", ()) for curve in curves]
    common = sorted(set.intersection(*map(set, steps)))
    found: dict[str, list[float]] = {"iter": common}
    for loss in LOSSES:
        if not all(loss in curve for curve in curves):
            continue
        values = [dict(zip(curve["iter"], curve[loss], strict=True)) for curve in curves]
        rows = [interval([value[step] for value in values]) for step in common]
        for place, name in enumerate((loss, f"{loss}_low", f"{loss}_high")):
            found[name] = [round(row[place], 6) for row in rows]
    return found


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of at least 2 values and both ends of its interval, by Student's t."""
    mean = statistics.fmean(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    margin = error * t_quantile(BAND, len(values) - 1)
    return mean, mean - margin, mean + margin
