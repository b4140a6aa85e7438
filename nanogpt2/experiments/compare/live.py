"""Trainings under way, as `report.live` writes them: here, and in DVC's copies of the project."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nanogpt2.base.system.files import parse_object
from nanogpt2.config.schema import flatten
from nanogpt2.experiments.compare.cache import read_here
from nanogpt2.experiments.compare.runs import Run

LIVE = "logs/live.json"
COPIES = Path(".dvc/tmp")
KINDS = ("exps/standalone/*", "exps/*", "sweeps/*")  # of `dvc exp run --temp`, --queue, and sweeps


def list_live_files() -> list[Path]:
    """Return the files of trainings, under way or over, here and in DVC's copies."""
    copies = (path for kind in KINDS for path in sorted(COPIES.glob(f"{kind}/{LIVE}")))
    return [Path(LIVE), *copies]


def list_running() -> list[Run]:
    """Return the trainings that are under way."""
    return list(_read_running())


def _read_running() -> Iterator[Run]:
    for path in list_live_files():
        live = parse_object(read_here(path))
        if not _is_alive(live):
            continue
        rows = live["history"]
        names = ("iter", "train_loss", "val_loss")
        here = path == Path(LIVE)
        where = "the workspace" if here else path.parents[1].relative_to(COPIES).as_posix()
        yield Run(
            f"training in {where}",
            "running",
            params=flatten(live["params"]),
            curve={name: [row[name] for row in rows] for name in names if rows},
            progress={key: live[key] for key in ("iter", "max_iters", "tokens_per_second")},
            notes=["is being trained"],
        )


def _is_alive(live: Mapping[str, Any]) -> bool:
    """Return whether the process that wrote `live` runs still."""
    if live.get("process") is None or not isinstance(live.get("history"), list):
        return False
    import psutil

    number, began = live["process"]
    try:
        return bool(abs(psutil.Process(number).create_time() - began) < 1)
    except psutil.Error:
        return False
