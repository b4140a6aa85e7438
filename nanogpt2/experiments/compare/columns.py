"""The figures that are compared: what each is called, which way is better, and its noise."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nanogpt2.experiments.compare.groups import Group
from nanogpt2.experiments.compare.runs import Run
from nanogpt2.experiments.significance import CONFIDENCE, t_quantile


@dataclass(frozen=True)
class Column:
    """A figure of every run. `per` is what must be the same for two to compare: tokens or text."""

    key: str
    title: str
    digits: int = 4
    better: str = "lower"  # or higher; empty where neither is
    per: str = ""
    percent: bool = False

    @property
    def split(self) -> str:
        """The split that it is a figure of, such as val."""
        return self.key.partition(".")[0]

    def show(self, value: float) -> str:
        """Return `value` as the page shows it."""
        if self.percent:
            return f"{value:.{self.digits}%}"
        return f"{value:,.{self.digits}f}"


COLUMNS = (
    Column("val.loss", "validation loss", per="tokens"),
    Column("val.bits_per_byte", "bits per byte", per="text"),
    Column("val.perplexity", "perplexity", 3, per="tokens"),
    Column("val.accuracy", "accuracy", 2, "higher", per="tokens", percent=True),
    Column("train.best_val_loss", "best in training", per="tokens"),
    Column("train.best_iter", "best step", 0, ""),
    Column("memorisation.samples.copied_windows", "memorised", 2, percent=True),
    Column("memorisation.samples.longest", "longest copy", 0),
    Column("test.loss", "test loss", per="tokens"),
    Column("test.bits_per_byte", "test bits per byte", per="text"),
)


@dataclass(frozen=True)
class Noise:
    """How much seeds alone change a figure: pooled over all settings of several seeds.

    Of 100 differences between two runs that differ by their seeds alone, 99 are within `margin`.
    """

    deviation: float
    freedom: int
    margin: float


Noises = Mapping[Column, Noise | None]  # by the columns that are shown, in their order


def measure_noises(runs: Sequence[Run], groups: Sequence[Group]) -> Noises:
    """Return the columns that any of `runs` has a figure for, each with its noise."""
    known = (column for column in COLUMNS if any(column.key in run.figures for run in runs))
    return {column: measure_noise(column, runs, groups) for column in known}


def measure_noise(column: Column, runs: Sequence[Run], groups: Sequence[Group]) -> Noise | None:
    """Return the noise of a figure, None where no setting has several seeds."""
    squares, freedom = 0.0, 0
    for group in groups:
        values = values_of(column, runs, group)
        if len(values) > 1:
            squares += statistics.variance(values.values()) * (len(values) - 1)
            freedom += len(values) - 1
    if not freedom:
        return None
    deviation = math.sqrt(squares / freedom)
    return Noise(deviation, freedom, math.sqrt(2) * deviation * t_quantile(CONFIDENCE, freedom))


def values_of(column: Column, runs: Sequence[Run], group: Group) -> dict[int, float]:
    """Return the figure of each run of `group` that has it, by its seed."""
    members = [runs[at] for at in group.members]
    return {
        int(run.params["seed"]): run.figures[column.key]
        for run in members
        if column.key in run.figures
    }


def changes(run: Run, base: Run) -> list[str]:
    """Return the parameters in which `run` differs from `base`, and whether data or code do.

    Seeds are left out.
    """
    keys = [key for key in {**base.params, **run.params} if key != "seed"]
    words = [
        f"{key} {show_value(run.params.get(key))}"
        for key in keys
        if run.params.get(key) != base.params.get(key)
    ]
    if _differ(run.hashes.get("data/prepared"), base.hashes.get("data/prepared")):
        words.append("other data")
    if _differ(run.code, base.code):
        words.append("other code")
    return words


def _differ(one: str | None, other: str | None) -> bool:
    return bool(one and other and one != other)


def show_value(value: object) -> str:
    """Return a parameter's value in one line."""
    if value is None:
        return "empty"
    return str(value).lower() if isinstance(value, bool) else str(value)
