"""Experiments: train and evaluate with several seeds, each a DVC experiment of its own.

DVC is run as the command that a person would type; nothing else in the library knows of it.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from nanogpt2.base.errors import ConfigError, DataError, TrainingError
from nanogpt2.base.files import sha256, write_errors
from nanogpt2.base.repository import check_repository
from nanogpt2.experiments.significance import compare, describe, describe_runs

METRICS = "metrics/eval.json"
COPIED = (".git/config", ".dvc/config.local")  # DVC writes them anew in each copy
LOG = Path("logs/seeds.log")


def compare_settings(
    settings: Sequence[str],
    against: Sequence[str],
    seeds: Sequence[int],
    *,
    split: str,
    show: Callable[[str], object],
) -> None:
    """Run `settings` for each seed and, where `against` gives others, those; `show` the results."""
    check_settings([*settings, *against])
    check_repository(Path())
    check_ascii()
    names = [" ".join(changes) or "params.yaml as it is" for changes in (settings, against)]
    runs = run_seeds(settings, seeds, split=split)
    if not against:
        show(describe_runs(f"{names[0]}: {split} loss", take(runs, "loss")))
        return
    others = run_seeds(against, seeds, split=split)
    figure = comparable_figure([*runs.values(), *others.values()])
    found, other = take(runs, figure), take(others, figure)
    label = figure.replace("_", " ")
    show(describe_runs(f"{names[0]}: {split} {label}", found))
    show(describe_runs(f"{names[1]}: {split} {label}", other))
    show(describe(compare([*found.values()], [*other.values()]), *names))


def comparable_figure(rows: Sequence[Mapping[str, float]]) -> str:
    """Return the figure by which runs compare: the loss per token where all have the same tokens.

    Where a split is not as many tokens in each, tokenizers differ, and it is the bits per byte.
    """
    return "loss" if len({row["tokens"] for row in rows}) == 1 else "bits_per_byte"


def take(rows: Mapping[int, Mapping[str, float]], figure: str) -> dict[int, float]:
    """Return a figure of each seed's run."""
    return {seed: row[figure] for seed, row in rows.items()}


def check_settings(settings: Iterable[str]) -> None:
    """Raise ConfigError for what is not `key=value`, as `dvc exp run -S` takes it, and for seeds.

    The rest is for the validate stage to refuse.
    """
    for setting in settings:
        key, equals, _ = setting.partition("=")
        if not equals or key.strip() == "seed":
            raise ConfigError(f"found {setting}; allowed: key=value, where key is not seed")


def run_seeds(
    settings: Sequence[str], seeds: Iterable[int], *, split: str
) -> dict[int, Mapping[str, float]]:
    """Return the figures of `split` for params.yaml with `settings`, by seed.

    What was run before comes from DVC's cache. Raises TrainingError where a run fails, DataError
    where it leaves no figures of the split.
    """
    names = {seed: f"seed-{seed}-{_digest(settings)}" for seed in seeds}
    # `exp run --force` would replace older ones, but run every stage anew
    if older := sorted(set(names.values()) & set(_dvc("exp", "list", "--name-only").split())):
        _dvc("exp", "remove", *older)
    for seed, name in names.items():
        _run_experiment(name, [*settings, f"seed={seed}"])
    found = _read_metrics()
    return {seed: _figures(found, name, split) for seed, name in names.items()}


def _run_experiment(name: str, settings: Sequence[str]) -> None:
    """Run the pipeline up to evaluate, apart from the workspace; what it prints goes to LOG."""
    options = [word for setting in settings for word in ("-S", setting)]
    print(f"{name}: {' '.join(settings)} (lines in {LOG})", file=sys.stderr, flush=True)
    with write_errors(LOG):
        LOG.parent.mkdir(exist_ok=True)
        with LOG.open("ab+") as log:
            before = log.tell()
            try:
                _dvc("exp", "run", "--temp", "--name", name, *options, "evaluate", log=log)
            except TrainingError:
                log.seek(before)
                print(log.read().decode("utf-8", "replace"), end="", file=sys.stderr)
                raise


def _dvc(*arguments: str, log: BinaryIO | None = None) -> str:
    """Return what the command prints, or let it print to `log`; TrainingError where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=log or subprocess.PIPE,
        stderr=log,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise TrainingError(f"dvc {' '.join(arguments)}: failed; the lines above say why")
    return done.stdout or ""


def check_ascii() -> None:
    """Raise DataError where DVC could not configure a copy of the project, as it does in ASCII."""
    cache = _dvc("cache", "dir").strip()
    if not cache.isascii():
        raise DataError(
            "DVC runs no experiment in a copy where its cache has a path with letters beyond ASCII,"
            f" {cache}: dvc cache dir --local, and a folder with a plain path"
        )
    for path in filter(Path.is_file, map(Path, COPIED)):
        text = path.read_bytes().decode("utf-8", "replace")
        if line := next((line for line in text.splitlines() if not line.isascii()), None):
            raise DataError(
                f"DVC runs no experiment in a copy where {path} has letters beyond ASCII:"
                f" {line.strip()}; set it for yourself instead, with config --global"
            )


def _read_metrics() -> dict[str, Mapping[str, Any]]:
    """Return the content of metrics/eval.json by the names of all experiments on this commit."""
    revisions = json.loads(_dvc("exp", "show", "--json"))
    experiments = [each for revision in revisions for each in revision.get("experiments") or []]
    return {
        each["name"]: each["revs"][0]["data"]["metrics"].get(METRICS, {}).get("data", {})
        for each in experiments
        if each["name"] and each["revs"] and each["revs"][0].get("data")
    }


def read_seeds() -> dict[int, Mapping[str, Any]]:
    """Return metrics/eval.json of params.yaml as it was committed, for each seed that `seeds` ran.

    TrainingError where DVC fails.
    """
    pattern = re.compile(rf"seed-(\d+)-{_digest(())}")
    rows = {
        int(match[1]): figures
        for name, figures in _read_metrics().items()
        if figures and (match := pattern.fullmatch(name))
    }
    return dict(sorted(rows.items()))


def _figures(
    metrics: Mapping[str, Mapping[str, Any]], name: str, split: str
) -> Mapping[str, float]:
    try:
        row = metrics[name][split]
        return {key: float(row[key]) for key in ("loss", "bits_per_byte", "tokens")}
    except KeyError as error:
        raise DataError(f"experiment {name}: no loss on the {split} split in {METRICS}") from error


def _digest(settings: Sequence[str]) -> str:
    return sha256("\n".join(settings).encode("utf-8"))[:6]
