"""Sweeps: many settings, each a DVC experiment; the best by validation, measured once on test."""

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from nanogpt2.base.system.errors import ConfigError, TrainingError
from nanogpt2.base.system.repository import check_repository
from nanogpt2.base.system.words import in_columns
from nanogpt2.config import yaml12
from nanogpt2.experiments.search import Search, name_of, texts_of
from nanogpt2.experiments.seeds import (
    PARAMS,
    check_keys,
    comparable_figure,
    figures_of,
    run_all,
    seed_trials,
)
from nanogpt2.experiments.significance import CONFIDENCE, Comparison, compare, correct, show_p
from nanogpt2.experiments.trials.board import describe
from nanogpt2.experiments.trials.copies import read_base
from nanogpt2.experiments.trials.hopeless import RULE
from nanogpt2.experiments.trials.runner import Grid, Source, failures
from nanogpt2.experiments.trials.space import Setting, check_search, check_settings, read_space
from nanogpt2.experiments.trials.trial import FINISHED, Trial, make_trial

Show = Callable[[str], object]


def sweep(
    settings: Sequence[str],
    *,
    file: Path | None,
    count: int | None,
    seed: int,
    jobs: int | None,
    stop_hopeless: bool,
    dry_run: bool,
    show: Show,
) -> None:
    """Run each combination of `settings`, or `count` drawn with `seed`, and `show` the table.

    Raises ConfigError before anything runs; TrainingError at the end where trials failed.
    """
    space = read_space(settings, file)
    values = yaml12.read(PARAMS)
    grid = [] if count else space.grid()
    if count:
        check_search(values, space)
    check_settings(values, [(), *grid])
    if dry_run:
        drawn = f"{count} drawn from: {', '.join(space.axes)}"
        show("\n".join([drawn] if count else [f"{len(grid)} trials", *map(" ".join, grid)]))
        return
    check_repository(Path())
    base = read_base()
    source: Source = Grid([make_trial(name_of(each), each, values) for each in grid])
    ends = [(), *((f"{axis.key}={text}",) for axis in space.axes.values() for text in axis.texts)]
    if count:
        source = Search(space, values, base, count=count, seed=seed)
    if stop_hopeless:
        show(RULE)
    run_all(
        source,
        base,
        values,
        jobs=jobs,
        stop_hopeless=stop_hopeless,
        most=count or len(grid),
        settings=ends if count else (),
    )
    show("\n".join(describe_trials(source.trials, space.varied)))
    if count and len(source.trials) < count:
        show(f"the space has no more than {len(source.trials)} settings that could be drawn")
    _raise_for(source.trials)


def sweep_with_seeds(
    settings: Sequence[str],
    seeds: Sequence[int],
    *,
    file: Path | None,
    jobs: int | None,
    dry_run: bool,
    show: Show,
) -> None:
    """Run each combination of `settings` with each of `seeds`, and params.yaml as it is too.

    Shows which differ from it, corrected for how many were tried.
    """
    space = read_space(settings, file)
    for key in space.axes:
        check_keys([f"{key}="])
    values = yaml12.read(PARAMS)
    grid = space.grid()
    check_settings(values, [(), *grid])
    if dry_run:
        seeded = f"{len(grid)} settings and params.yaml as it is, {len(seeds)} seeds each"
        show("\n".join([seeded, *map(" ".join, grid)]))
        return
    check_repository(Path())
    base = read_base()
    found = {setting: seed_trials(setting, seeds, values) for setting in [(), *grid]}
    trials = {trial.name: trial for each in found.values() for trial in each.values()}
    if len(trials) < len(found) * len(seeds):
        raise ConfigError("two settings have the same digest; write a value of one in another way")
    run_all(Grid([*trials.values()]), base, values, jobs=jobs)
    whole = {
        setting: list(each.values())
        for setting, each in found.items()
        if all(trial.state == FINISHED for trial in each.values())
    }
    if () in whole and len(whole) > 1:
        show("\n".join(describe_settings(whole)))
    _raise_for([*trials.values()])


def _raise_for(trials: Sequence[Trial]) -> None:
    if failed := failures(trials):
        raise TrainingError(
            f"{len(failed)} of {len(trials)} trials failed, {failed[0].name} first; the same"
            " command tries them again"
        )


# --- In words ---


def describe_trials(trials: Sequence[Trial], varied: Sequence[str]) -> list[str]:
    """Return the table of trials by their validation loss, and how to take the best one."""
    finished = [trial for trial in trials if trial.state == FINISHED]
    rows = {trial.name: figures_of(trial, "val") for trial in finished}
    figure = comparable_figure([*rows.values()]) if rows else "loss"
    finished.sort(key=lambda trial: rows[trial.name][figure])
    lines = [[f"val {figure.replace('_', ' ')}", "experiment", *varied]]
    for trial in finished:
        lines.append([f"{rows[trial.name][figure]:.4f}", trial.name, *_values(trial, varied)])
    for trial in trials:
        if trial.state != FINISHED:
            lines.append([describe(trial, "val"), trial.name, *_values(trial, varied)])
    shown = _columns(lines, best=bool(finished))
    return [*shown, *(_describe_best(finished[:1], figure) if finished else [])]


def _values(trial: Trial, keys: Sequence[str]) -> list[str]:
    texts = texts_of(trial.setting)
    return [texts[key] for key in keys]


def _columns(rows: Sequence[Sequence[str]], *, best: bool) -> list[str]:
    """Return rows in columns, below the first one as their heads; the second one is marked."""
    marks = [" ", "*" if best else " ", *" " * len(rows)]
    return [f"{mark} {line}".rstrip() for mark, line in zip(marks, in_columns(rows), strict=False)]


def _describe_best(trials: Sequence[Trial], figure: str) -> list[str]:
    """Return how to take the best setting, of which these are the runs, and its test figure."""
    name = trials[0].name
    lines = [f"best: {name}; take it: dvc exp apply {name}, or dvc exp branch {name} BRANCH"]
    found = [trial.figures.get("test", {}).get(figure) for trial in trials]
    if all(isinstance(value, float) for value in found):
        mean, label = statistics.fmean(found), figure.replace("_", " ")
        lines.append(f"its test {label}, which chose nothing: {mean:.4f}")
    return lines


def describe_settings(found: dict[Setting, list[Trial]]) -> list[str]:
    """Return the table of settings by their mean over seeds, each against params.yaml as it is."""
    rows = {s: [figures_of(trial, "val") for trial in ts] for s, ts in found.items()}
    figure = comparable_figure([row for each in rows.values() for row in each])
    figures = {setting: [row[figure] for row in each] for setting, each in rows.items()}
    tried = [setting for setting in figures if setting]
    compared = {setting: compare(figures[setting], figures[()]) for setting in tried}
    p_values = dict(zip(tried, correct([compared[s].p_value for s in tried]), strict=True))
    means = {setting: statistics.fmean(each) for setting, each in figures.items()}
    order = sorted(figures, key=lambda setting: means[setting])
    label = f"val {figure.replace('_', ' ')}"
    lines = [[label, "deviation", "minus base", "p", "verdict", "setting"]]
    for setting in order:
        spread = f"{statistics.stdev(figures[setting]):.4f}"
        against = _against(compared[setting], p_values[setting]) if setting else ["", "", "base"]
        name = " ".join(setting) or "params.yaml as it is"
        lines.append([f"{means[setting]:.4f}", spread, *against, name])
    return [
        *_columns(lines, best=True),
        f"p: paired t test by seed, two-sided, corrected for {len(tried)} settings after Holm:"
        f" where none differs, one is called different in {1 - CONFIDENCE:.0%} of sweeps",
        *_describe_best(found[order[0]], figure),
    ]


def _against(comparison: Comparison, p_value: float) -> list[str]:
    return [f"{comparison.mean:+.4f}", show_p(p_value), comparison.judge(p_value)]
