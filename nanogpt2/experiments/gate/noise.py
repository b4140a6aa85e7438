"""Noise: how far apart the figures of two runs are that differ in their seed alone.

A difference of two runs has the variance of both. Where the spread is estimated from n runs, it
over their standard deviation times the root of 2 is Student's t with n - 1 degrees of freedom
(Student 1908): so few seeds give a wide allowance, and never one that fails too often.
"""

import json
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.repository import changed_files
from nanogpt2.config import yaml12
from nanogpt2.config.schema import flatten
from nanogpt2.experiments.proof.record import PARAMETERS, PLAN, look_up, parameters_read, stages_of
from nanogpt2.experiments.seeds import read_seeds
from nanogpt2.experiments.significance import t_quantile
from nanogpt2.experiments.trials.dvc import METRICS

FEWEST = 3  # seeds: two have a spread too, but one that tells hardly anything
HOW = "python -m nanogpt2 seeds --n 5, then python -m nanogpt2 check --measure-noise"
NOT_COMPARED = ("seed", "sample")  # parameters on which the noise does not depend


@dataclass(frozen=True)
class Noise:
    """The figures of runs that differ in their seed alone."""

    path: str
    seeds: list[int]
    parameters: Mapping[str, Any]  # of these runs, by key in full
    figures: Mapping[str, Any]  # {file: {key in full: one value a seed}}

    def values(self, file: str, key: str) -> list[Any]:
        """Return what the runs have at `key`, in the order of the seeds; nothing if not all do."""
        found = self.figures.get(file, {})
        values = found.get(key) if isinstance(found, Mapping) else None
        return values if isinstance(values, list) and len(values) == len(self.seeds) else []

    def allowance(self, file: str, key: str, chance: float) -> float:
        """Return what the difference of two runs exceeds in a share of `chance` of all pairs.

        DataError where the figure was not measured, or has no spread.
        """
        values = self.values(file, key)
        if len(values) < FEWEST or not all(isinstance(value, int | float) for value in values):
            raise DataError(f"{self.path}: it has no figures of {file}: {key}; {HOW}")
        bound = allowance(values, chance)
        if not bound:
            raise DataError(
                f"{self.path}: {file}: {key} is the same for all seeds, so it has no noise;"
                " allowed: a number or a share"
            )
        return bound


def allowance(values: Sequence[float], chance: float) -> float:
    """Return the one-sided bound on the difference of two further values, exceeded by `chance`.

    `values`, at least 2, are of one normal distribution, as both further values are.
    """
    quantile = t_quantile(1 - 2 * chance, len(values) - 1)
    return quantile * statistics.stdev(values) * math.sqrt(2)


def read_noise(path: str) -> Noise:
    """Return what `measure_noise` wrote; DataError where it is not there, or is something else."""
    if not files.exists(path):
        raise DataError(f"{path}: no such file: {HOW}, and git add {path}")
    content = files.read_json(path)
    try:
        seeds, parameters, figures = (content[key] for key in ("seeds", "parameters", "figures"))
        return Noise(path, [int(seed) for seed in seeds], dict(parameters), dict(figures))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: it is not what --measure-noise writes; {HOW}") from error


def measure_noise(path: str) -> str:
    """Write to `path` the figures of the seeds that `seeds` ran on this commit; say so in a line.

    DataError where there are too few.
    """
    if changed_files(PARAMETERS):
        raise DataError(f"{PARAMETERS}: changed since the last commit: commit it, then {HOW}")
    rows = read_seeds()
    if len(rows) < FEWEST:
        raise DataError(
            f"found {len(rows)} seeds of {PARAMETERS} as this commit has it; needed: {FEWEST} or"
            f" more: {HOW}"
        )
    flat = [flatten(row) for row in rows.values()]
    figures = {
        key: [row[key] for row in flat]
        for key, value in flat[0].items()
        if not isinstance(value, list) and all(key in row for row in flat)
    }
    content = {
        "seeds": list(rows),
        "figures": {METRICS: figures},
        "parameters": experiment_parameters(yaml12.read(PLAN), yaml12.read(PARAMETERS)),
    }
    files.write_text(path, write_out(content))
    return f"{path}: the figures of {len(rows)} seeds; git add {Path(path).as_posix()}"


def write_out(content: Mapping[str, Any]) -> str:
    """Return `content` as JSON with a line for each figure and parameter."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\[([^][{}]*)\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def experiment_parameters(plan: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters on which figures depend, by key in full, as dvc.yaml lists them."""
    keys = {key: None for stage in stages_of(plan).values() for key in parameters_read(stage)}
    read = {key: look_up(values, key) for key in keys if key.split(".")[0] not in NOT_COMPARED}
    return flatten(read)
