"""The check of a branch: does its record fit, and is it worse than the base?"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import ConfigError, DataError, NanoGPT2Error
from nanogpt2.base.system.repository import committed_text, find_commit, has_ancestor, is_shallow
from nanogpt2.base.system.words import name_some
from nanogpt2.config import yaml12
from nanogpt2.experiments.gate.changes import changed_inputs, changed_parameters, other_settings
from nanogpt2.experiments.gate.fit import describe_fit
from nanogpt2.experiments.gate.judge import Row, Side, find_figure, judge_figure
from nanogpt2.experiments.gate.noise import Noise, read_noise
from nanogpt2.experiments.gate.thresholds import (
    NOISE,
    Acceptances,
    Threshold,
    Thresholds,
    parse_thresholds,
    read_thresholds,
)
from nanogpt2.experiments.proof.record import LOCK, PARAMETERS, SHOWN


@dataclass
class Report:
    """What the check found; any fault or failing row fails it."""

    base: str  # as it was named
    faults: list[str] = field(default_factory=list)  # what a user can mend, a line each
    fit: str = ""  # that dvc.lock fits
    rows: list[Row] = field(default_factory=list)
    parameters: list[list[str]] = field(default_factory=list)  # key, before, now
    inputs: list[str] = field(default_factory=list)  # code and texts that changed
    notes: list[str] = field(default_factory=list)

    def say_once(self, note: str) -> None:
        """Add a note, unless it is there."""
        if note not in self.notes:
            self.notes.append(note)

    @property
    def failed(self) -> bool:
        """Return whether a job should fail."""
        return bool(self.faults) or any(row.fails for row in self.rows)

    @property
    def verdict(self) -> str:
        """Return in a line what came of it."""
        failing = [row.name for row in self.rows if row.fails]
        if failing:
            return f"FAILED: {', '.join(failing)}"
        if self.faults:
            return "FAILED: the lines above say what to mend"
        return f"passed: no worse than {self.base}" if self.rows else "passed"


class Commit:
    """The base: its files as git has them."""

    def __init__(self, name: str) -> None:
        self.name, self.hash = name, find_commit(name)

    def text(self, path: str) -> str | None:
        """Return the text of a file, None where the commit has none."""
        return committed_text(path, self.hash)

    def mapping(self, path: str) -> dict[str, Any]:
        """Return what a YAML file holds, nothing where the commit has none."""
        text = self.text(path)
        return yaml12.parse(text, name=f"{path} of {self.name}") if text else {}

    def thresholds(self, path: str) -> Thresholds | None:
        """Return what the commit allows, None where it has no such file, or a damaged one."""
        text = self.text(path)
        with suppress(ConfigError):  # which this branch may mend
            return parse_thresholds(text, name=path) if text else None
        return None

    def metrics(self, path: str) -> Any:
        """Return what a JSON file holds, None where the commit has none."""
        text = self.text(path)
        try:
            return json.loads(text) if text else None
        except ValueError as error:
            raise DataError(f"{path} of {self.name}: damaged JSON: {error}") from error


def check(base: str, *, thresholds: str) -> Report:
    """Compare what lies here with the commit `base` by the file `thresholds`, and return all."""
    report = Report(base)
    try:
        report.fit = describe_fit()
    except NanoGPT2Error as error:
        report.faults += str(error).splitlines()
    if base and not base.strip("0"):  # as a server names what was before a new branch
        report.notes.append("no commit before this one: nothing is compared")
        return report
    try:
        compare_with(Commit(base), thresholds, report)
    except NanoGPT2Error as error:
        report.faults += str(error).splitlines()
    return report


def compare_with(base: Commit, path: str, report: Report) -> None:
    """Add to the report what of the base is otherwise here, and the verdict on each figure."""
    parameters = base.mapping(PARAMETERS), yaml12.read(PARAMETERS)
    report.parameters = changed_parameters(*parameters)
    with suppress(ConfigError):  # of a damaged one, of which the report has a line
        report.inputs = changed_inputs(base.mapping(LOCK), yaml12.read(LOCK))
    if not is_shallow() and not has_ancestor(base.hash):
        report.notes.append(
            f"{base.name} has commits that this branch lacks, so the table shows their work too:"
            f" git merge {base.name}"
        )
    rules, old = read_thresholds(path), base.thresholds(path)
    if old is not None and old.allowances() != rules.allowances():
        report.notes.append(f"{path} allows something else than that of {base.name}")
    names = list(dict.fromkeys(threshold.file for threshold in rules.metrics))
    here = {name: files.read_json(name) if files.exists(name) else None for name in names}
    before = Side({name: base.metrics(name) for name in names}, parameters[0])
    spent = old.acceptances() if old is not None else {}
    noise = partial(read_noise, rules.noise)
    compare_figures(before, Side(here, parameters[1]), rules, report, noise=noise, spent=spent)


def compare_figures(
    base: Side,
    head: Side,
    rules: Thresholds,
    report: Report,
    *,
    noise: Callable[[], Noise],
    spent: Acceptances,
) -> None:
    """Add to the report the row of each figure that the rules name.

    `noise` is asked for where it is needed; acceptances that were `spent` count no more.
    """
    chance = rules.chance / max(1, len(rules.of_noise()))
    for threshold in rules.metrics:
        accepts = spent.get((threshold.file, threshold.key)) != threshold.accept
        try:
            row = judge_figure(threshold, base, head, noise=noise, chance=chance, accepts=accepts)
        except NanoGPT2Error as error:
            report.faults += [line for line in str(error).splitlines() if line not in report.faults]
            row = leave_open(threshold, base, head)
        report.rows.append(row)
        if threshold.allowed == NOISE and row.allowed is not None:
            report.say_once(describe_noise(noise(), base.parameters))


def leave_open(threshold: Threshold, base: Side, head: Side) -> Row:
    """Return the row of a figure for which it cannot be told what is allowed."""
    before, now = (find_figure(side, threshold.file, threshold.key) for side in (base, head))
    return Row(threshold.name, before, now, None, "allowed is not known", fails=True)


def describe_noise(noise: Noise, parameters: Mapping[str, Any]) -> str:
    """Return in a line with how many seeds it was measured, and what is otherwise now."""
    line = f"noise: {len(noise.seeds)} seeds ({noise.path})"
    if others := other_settings(noise, parameters):
        return f"{line}, measured with {name_some(others, SHOWN)}: measure it anew"
    return line
