"""The runs that were cut off, as people see, remove and sample them."""

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanogpt2.base.system.checksums import hash_code
from nanogpt2.base.system.errors import CheckpointError, DataError, TrainingError
from nanogpt2.base.system.files import exists, is_folder
from nanogpt2.base.system.words import counted, describe_seconds
from nanogpt2.commands.shared.values import STATES
from nanogpt2.model.checkpoint import Checkpoint, build_model, load_tensors
from nanogpt2.train.distil.ahead import released
from nanogpt2.train.states import TRAINING_ROOMS
from nanogpt2.train.unfinished.resume import StateFiles

ABOUT, FACTS = "run.txt", "facts.json"  # of a run's folder, as train writes them


@dataclass(frozen=True)
class UnfinishedRun:
    """One unfinished run, as `list_runs` found it."""

    name: str
    step: int  # of its newest state; 0 where it has none yet
    bytes: int
    seconds_old: float
    running: bool
    about: str
    code_differs: bool = False  # so that the same command starts afresh


def list_runs(root: str | Path) -> list[UnfinishedRun]:
    """Return the unfinished runs under `root`, the newest first; other folders are left out.

    DataError where `root` is a file, or is not there and not where runs are kept by default.
    """
    if not is_folder(root):
        if exists(root):
            raise DataError(f"{root}: a file; allowed: the folder of unfinished runs")
        if Path(root) != STATES:
            raise DataError(f"{root}: no such folder; unfinished runs are kept in {STATES}")
        return []
    code = hash_code(TRAINING_ROOMS)
    runs = [_inspect(folder, code) for folder in Path(root).glob("*") if is_run(folder)]
    return sorted(runs, key=lambda run: run.seconds_old)


def is_run(folder: Path) -> bool:
    """Return whether training made `folder`: its name is a fingerprint, and what it kept is there.

    Any project may have a run.txt, which alone would not say so.
    """
    named = re.fullmatch("[0-9a-f]{16}", folder.name) and folder.is_dir()
    there = named and any((folder / name).is_file() for name in (ABOUT, FACTS))
    return bool(there or (named and StateFiles(folder).paths()))


def describe_run(run: UnfinishedRun) -> str:
    """Return one line about an unfinished run."""
    return (
        f"{run.name}  iteration {run.step}  {run.bytes / 1e6:.1f} MB "
        f" {describe_seconds(run.seconds_old)} old{'  under way' * run.running}"
        f"{'  of other code' * run.code_differs}  {run.about}"
    )


def _inspect(folder: Path, code: str) -> UnfinishedRun:
    kept = [path for path in folder.iterdir() if path.is_file()]
    states = StateFiles(folder)
    paths = states.paths()
    newest = max((path.stat().st_mtime for path in kept), default=folder.stat().st_mtime)
    about = folder / ABOUT
    return UnfinishedRun(
        name=folder.name,
        step=int(paths[-1].name.split("-")[0]) if paths else 0,
        bytes=sum(path.stat().st_size for path in kept),
        seconds_old=max(0.0, time.time() - newest),  # a clock may have been wrong
        running=states.is_under_way(),
        about=about.read_text(encoding="utf-8") if about.exists() else "",
        code_differs=bool(paths) and _code_of(states) != code,
    )


def _code_of(states: StateFiles) -> str | None:
    """Return the hash of the code that wrote `states`, or None where that was not noted."""
    try:
        return str(states.facts()["code"])
    except (DataError, LookupError, TypeError):  # of an older version, or damaged
        return None


def prune_runs(root: str | Path, names: Iterable[str] = ()) -> list[UnfinishedRun]:
    """Remove the unfinished runs called `names`, or all; those under way stay. Returns them."""
    wanted = set(names)
    runs = {run.name: run for run in list_runs(root)}
    if unknown := wanted - set(runs):
        raise TrainingError(f"no unfinished run {', '.join(sorted(unknown))} under {root}")
    pruned = [run for name, run in runs.items() if not run.running and name in (wanted or runs)]
    for run in pruned:
        StateFiles(Path(root, run.name)).delete()
    return pruned


def describe_pruned(runs: Sequence[UnfinishedRun]) -> str:
    """Return one line about runs that were removed."""
    size = sum(run.bytes for run in runs)
    return f"removed {counted(len(runs), 'unfinished run')}, {size / 1e6:.1f} MB"


def newest(root: str | Path, name: str = "") -> UnfinishedRun | None:
    """Return the newest run with a state whose name begins with `name`, or None."""
    runs = list_runs(root)
    return next((run for run in runs if run.step and run.name.startswith(name)), None)


def find_run(root: str | Path, name: str = "") -> Path:
    """Return the folder of the unfinished run that `name` begins, or of the newest with a state.

    TrainingError where there is none.
    """
    run = newest(root, name)
    if run is None:
        listed = ", ".join(run.name for run in list_runs(root)) or "none"
        wanted = f"no unfinished run {name}".rstrip()
        raise TrainingError(f"{wanted} with a state under {root}; there are: {listed}")
    return Path(root, run.name)


def load_unfinished(path: str | Path) -> Checkpoint:
    """Return the model of a state, or of the newest whole one in a run's folder, on the CPU.

    With an EMA it is that of the weights, as evaluations see it. CheckpointError where there is
    none that can be read.
    """
    path = Path(path)
    state = _load_newest(path) if path.is_dir() else load_tensors(path)
    if state is None:
        raise CheckpointError(f"{path}: no config.json of a model, and no whole state of a run")
    try:
        stepper, step = state["stepper"], int(state["record"]["step"])
        config, weights = stepper["config"], stepper["model"]
        means = dict(zip(stepper["trained"], stepper["ema"], strict=False))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a state of this version's runs") from error
    model = build_model(path, config, released(weights | means))
    return Checkpoint(model.eval(), None, {"iter": step})


def _load_newest(folder: Path) -> dict[str, Any] | None:
    """Return the newest whole state in a folder, or None; the root of a disk has none."""
    folder = folder.resolve()  # which has a name, as . has not
    return StateFiles(folder).load()[0] if folder.name else None
