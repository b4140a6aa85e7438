"""Seeds: train and evaluate a setting, or two, with several seeds, each run a DVC experiment."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nanogpt2.base.screen.screen import done, phase, still
from nanogpt2.base.system.errors import ConfigError, TrainingError
from nanogpt2.base.system.files import parse_object
from nanogpt2.base.system.repository import (
    check_repository,
    current_commit,
    list_experiments,
    read_committed,
)
from nanogpt2.config import yaml12
from nanogpt2.config.schema import with_defaults
from nanogpt2.experiments.significance import compare, describe, describe_runs
from nanogpt2.experiments.trials.board import Board
from nanogpt2.experiments.trials.copies import Base, check_inputs, read_base
from nanogpt2.experiments.trials.dvc import METRICS
from nanogpt2.experiments.trials.places import find_places
from nanogpt2.experiments.trials.runner import Grid, Runner, Source, failures
from nanogpt2.experiments.trials.space import Setting, apply, check_settings, split
from nanogpt2.experiments.trials.trial import FINISHED, STOPPED, Trial, digest, make_trial

PARAMS = Path("params.yaml")
FIGURES = ("loss", "bits_per_byte", "tokens")


def compare_settings(
    settings: Sequence[str],
    against: Sequence[str],
    seeds: Sequence[int],
    *,
    split: str,
    show: Callable[[str], object],
    jobs: int | None = None,
) -> None:
    """Run `settings` for each seed and, where `against` gives others, those; `show` the results.

    Several runs go side by side, `jobs` of them where given.
    """
    both = [tuple(settings), *([tuple(against)] if against else [])]
    check_keys([*settings, *against])
    check_repository(Path())
    values = yaml12.read(PARAMS)
    check_settings(values, both)
    base = read_base()
    found = [seed_trials(setting, seeds, values) for setting in both]
    trials = {trial.name: trial for each in found for trial in each.values()}
    run_all(Grid([*trials.values()]), base, values, jobs=jobs, split=split)
    if failed := failures(trials.values()):
        raise TrainingError(f"{failed[0].name}: failed; the lines above say why")
    names = [" ".join(each) or "params.yaml as it is" for each in both]
    rows = [{seed: figures_of(trials[t.name], split) for seed, t in ts.items()} for ts in found]
    if not against:
        show(describe_runs(f"{names[0]}: {split} loss", take(rows[0], "loss")))
        return
    figure = comparable_figure([row for each in rows for row in each.values()])
    first, other = (take(each, figure) for each in rows)
    label = figure.replace("_", " ")
    show(describe_runs(f"{names[0]}: {split} {label}", first))
    show(describe_runs(f"{names[1]}: {split} {label}", other))
    show(describe(compare([*first.values()], [*other.values()]), *names))


def run_all(
    source: Source,
    base: Base,
    values: Mapping[str, Any],
    *,
    jobs: int | None,
    split: str = "val",
    stop_hopeless: bool = False,
    most: int | None = None,
    settings: Sequence[Setting] = (),
    more_follows: bool = False,
) -> None:
    """Run the trials of `source`, of which there are `most`, until all have ended.

    What an earlier call has found out is taken over. `settings` are those that a source makes
    trials of as it goes on, at the ends of what they may be. Where `more_follows`, what is under
    way already, from an earlier call, is left to that if nothing is to be run here.
    """
    kept = {each.name for each in list_experiments(base.head)}
    for trial in source.trials:
        trial.recall(base.identity, kept, stopped=stop_hopeless)
    if more_follows and all(trial.state == FINISHED for trial in source.trials):
        return
    written = settings or [trial.setting for trial in source.trials]
    rows = [with_defaults(apply(values, each)) for each in written]
    needed = check_inputs(base, rows)
    places = find_places(
        most or len(source.trials),
        devices=[row["device"] for row in rows],
        processes=max(row["num_processes"] for row in rows),
        jobs=jobs,
    )
    board = Board(split)
    needed += [path for path, _ in base.files if path.endswith(".dvc")]
    runner = Runner(base, needed, places, board, stop_hopeless=stop_hopeless)
    with still() if board.live else phase("running trials"):
        runner.run(source, more=most or 0)
    ended = sum(trial.state in (FINISHED, STOPPED) for trial in source.trials)
    done(f"{ended} of {len(source.trials)} trials")


def seed_trials(
    setting: Setting, seeds: Iterable[int], values: Mapping[str, Any]
) -> dict[int, Trial]:
    """Return the trials of a setting, by seed."""
    return {
        seed: make_trial(f"seed-{seed}-{digest(setting)}", (*setting, f"seed={seed}"), values)
        for seed in seeds
    }


def comparable_figure(rows: Sequence[Mapping[str, float]]) -> str:
    """Return the figure by which runs compare: the loss per token where all have the same tokens.

    Where a split is not as many tokens in each, tokenizers differ, and it is the bits per byte.
    """
    return "loss" if len({row["tokens"] for row in rows}) == 1 else "bits_per_byte"


def take(rows: Mapping[int, Mapping[str, float]], figure: str) -> dict[int, float]:
    """Return a figure of each seed's run."""
    return {seed: row[figure] for seed, row in rows.items()}


def figures_of(trial: Trial, split: str) -> dict[str, float]:
    """Return the figures of a finished trial; DataError where it left none of the split."""
    return {name: trial.figure(split, name) for name in FIGURES}


def check_keys(settings: Iterable[str]) -> None:
    """Raise ConfigError for what is not one `key=value`, as `dvc exp run -S` has it, or a seed."""
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key.strip() == "seed":
            raise ConfigError(f"found {setting}; allowed: key=value, where key is not seed")
        if len(split(text)) > 1:
            raise ConfigError(f"found {setting}; allowed: one value; sweep takes several")


def read_seeds() -> dict[int, Mapping[str, Any]]:
    """Return metrics/eval.json of params.yaml as it was committed, for each seed that `seeds` ran.

    Git has it in the commits that DVC makes of experiments.
    """
    pattern = re.compile(rf"seed-(\d+)-{digest(())}")
    experiments = list_experiments(current_commit() or "none")
    commits = {each.commit: m for each in experiments if (m := pattern.fullmatch(each.name))}
    contents = read_committed([*commits], [METRICS])
    rows = {int(commits[commit][1]): parse_object(text) for (commit, _), text in contents.items()}
    return {seed: figures for seed, figures in sorted(rows.items()) if figures}
