"""Experiments: train and evaluate with several seeds, each a DVC experiment of its own.

DVC is run as the command that a person would type; nothing else in the library knows of it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nanogpt2.base.errors import ConfigError, DataError, TrainingError
from nanogpt2.base.files import sha256
from nanogpt2.base.repository import check_repository
from nanogpt2.experiments.significance import compare, describe, describe_runs

METRICS = "metrics/eval.json"


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
    names = [" ".join(changes) or "params.yaml as it is" for changes in (settings, against)]
    losses = run_seeds(settings, seeds, split=split)
    show(describe_runs(f"{names[0]}: {split} loss", losses))
    if against:
        others = run_seeds(against, seeds, split=split)
        show(describe_runs(f"{names[1]}: {split} loss", others))
        show(describe(compare([*losses.values()], [*others.values()]), *names))


def check_settings(settings: Iterable[str]) -> None:
    """Raise ConfigError for what is not `key=value`, as `dvc exp run -S` takes it, and for seeds.

    The rest is for the validate stage to refuse.
    """
    for setting in settings:
        key, equals, _ = setting.partition("=")
        if not equals or key.strip() == "seed":
            raise ConfigError(f"found {setting}; allowed: key=value, where key is not seed")


def run_seeds(settings: Sequence[str], seeds: Iterable[int], *, split: str) -> dict[int, float]:
    """Return the loss (nats per token) on `split` of params.yaml with `settings`, by seed.

    What was run before comes from DVC's cache. Raises TrainingError where a run fails, DataError
    where it leaves no loss of the split.
    """
    names = {seed: f"seed-{seed}-{_digest(settings)}" for seed in seeds}
    # `exp run --force` would replace older ones, but run every stage anew
    if older := sorted(set(names.values()) & set(_dvc("exp", "list", "--name-only").split())):
        _dvc("exp", "remove", *older)
    for seed, name in names.items():
        _run_experiment(name, [*settings, f"seed={seed}"])
    found = _read_metrics()
    return {seed: _loss(found, name, split) for seed, name in names.items()}


def _run_experiment(name: str, settings: Sequence[str]) -> None:
    """Run the pipeline up to evaluate, apart from the workspace; its output goes to stderr."""
    options = [word for setting in settings for word in ("-S", setting)]
    print(f"{name}: {' '.join(settings)}", file=sys.stderr, flush=True)
    _dvc("exp", "run", "--temp", "--name", name, *options, "evaluate", to_stderr=True)


def _dvc(*arguments: str, to_stderr: bool = False) -> str:
    """Return what the command prints; TrainingError where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=2 if to_stderr else subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TrainingError(f"dvc {' '.join(arguments)}: failed; the lines above say why")
    return done.stdout or ""


def _read_metrics() -> dict[str, Mapping[str, Any]]:
    """Return the content of metrics/eval.json by the names of all experiments on this commit."""
    revisions = json.loads(_dvc("exp", "show", "--json"))
    experiments = [each for revision in revisions for each in revision.get("experiments") or []]
    return {
        each["name"]: each["revs"][0]["data"]["metrics"].get(METRICS, {}).get("data", {})
        for each in experiments
        if each["name"] and each["revs"] and each["revs"][0].get("data")
    }


def _loss(metrics: Mapping[str, Mapping[str, Any]], name: str, split: str) -> float:
    try:
        return float(metrics[name][split]["loss"])
    except KeyError as error:
        raise DataError(f"experiment {name}: no loss on the {split} split in {METRICS}") from error


def _digest(settings: Sequence[str]) -> str:
    return sha256("\n".join(settings).encode("utf-8"))[:6]
