"""Which runs there are: the workspace, trainings under way, commits, and DVC's experiments."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.files import parse_object
from nanogpt2.base.system.repository import (
    Revision,
    current_commit,
    find_revisions,
    list_experiments,
    read_committed,
)
from nanogpt2.experiments.compare.cache import read_here
from nanogpt2.experiments.compare.live import LIVE, list_running
from nanogpt2.experiments.compare.runs import PATHS, Run, has_results, read_run

REPORT = Path("logs/train.json")  # of the training in the workspace
NONE = (
    "no run here yet: neither the workspace nor a commit nor an experiment has metrics or curves;"
    " dvc repro makes the first"
)


def collect_runs(revisions: Sequence[str] = ()) -> list[Run]:
    """Return what is under way, the workspace, HEAD, `revisions` and all experiments.

    Of two rows with the same files one is kept. DataError where there is no run at all, or git
    knows no such revision.
    """
    named = [revision for name in revisions for revision in find_revisions(name)]
    head = find_revisions("HEAD") if current_commit() else []
    experiments = _with_distinct_names(list_experiments())
    committed = list(_read_revisions([*head, *named, *experiments]))
    here = read_workspace()
    same = [run for run in committed if _is_same(run, here)]
    if same or not has_results(here):
        committed = [
            replace(run, report=here.report, notes=[*run.notes, "is in the workspace"])
            if run in same
            else run
            for run in committed
        ]
        rows = committed
    else:
        rows = [here, *committed]
    found = [*list_running(), *filter(has_results, rows)]
    if not found:
        raise DataError(NONE)
    return found


def read_workspace() -> Run:
    """Return the run whose results lie in the workspace."""
    contents = {path: read_here(Path(path)) for path in PATHS}
    run = read_run("workspace", "workspace", contents)
    return replace(run, report=_read_report(run))


def _read_report(run: Run) -> Mapping[str, Any]:
    """Return logs/train.json where it is of `run`: the same losses, or at least as many steps."""
    report, live = (parse_object(read_here(path)) for path in (REPORT, Path(LIVE)))
    if rows := live.get("history"):
        losses = [row.get("val_loss") for row in rows if isinstance(row, dict)]
        return report if losses == [*run.curve.get("val_loss", ())] else {}
    return report if report.get("max_iters") == run.params.get("max_iters") else {}


def _is_same(run: Run, here: Run) -> bool:
    """Return whether `here` has the results of `run`: the same models, or at least figures."""
    if run.hashes and here.hashes:
        return run.hashes == here.hashes and run.figures == here.figures
    return bool(run.curve) and (run.curve, run.figures) == (here.curve, here.figures)


def _with_distinct_names(experiments: Sequence[Revision]) -> Iterator[Revision]:
    """Give experiments of one name, which DVC allows on different commits, their commit too."""
    names = [experiment.name for experiment in experiments]
    for experiment in experiments:
        twice = names.count(experiment.name) > 1
        name = f"{experiment.name} ({experiment.commit[:7]})" if twice else experiment.name
        yield replace(experiment, name=name)


def _read_revisions(revisions: Sequence[Revision]) -> Iterator[Run]:
    by_commit: dict[str, Revision] = {}
    for each in revisions:
        by_commit.setdefault(each.commit, each)
    contents = read_committed(list(by_commit), PATHS)
    for each in by_commit.values():
        yield read_run(
            each.name,
            "experiment" if each.base else "commit",
            {path: contents.get((each.commit, path)) for path in PATHS},
            commit=each.commit,
            base=each.base,
            time=each.time,
            subject=each.subject,
        )
