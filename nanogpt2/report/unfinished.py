"""Unfinished runs that a run leaves aside: which is most like it, and why it is not continued."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError
from nanogpt2.report.recorded import list_changes

ABOUT, FACTS = "run.txt", "facts.json"  # of a run's folder: in words, and all that decides it
ROOT = Path(".resume")
MOST = 3  # changes; what differs in more is another run
NOT_A_RUN = (DataError, OSError, LookupError, TypeError, ValueError, AttributeError)
NAMES = {  # of the facts whose values tell people nothing
    "data": "the data",
    "separator": "the separator",
    "teachers": "the teachers",
    "code": "the library's code",
}


@dataclass(frozen=True)
class Left:
    """An unfinished run that is not continued; `changes` say what is not as it was."""

    folder: Path
    step: int
    changes: list[str]


def tell_left(folder: Path, is_under_way: Callable[[Path], bool]) -> str:
    """Return a line on the unfinished run that is most like that of `folder`, or "" for none."""
    found = sorted(_find(folder), key=lambda left: (len(left.changes), -left.step, left.folder))
    left = next((left for left in found if not is_under_way(left.folder)), None)
    if left is None:
        return ""
    here = folder.parent.resolve() == ROOT.resolve()  # as DVC's stages name it by its whole path
    root, shown = ("", ROOT) if here else (f" --root {folder.parent}", folder.parent)
    return (
        f"warning: starting afresh: {shown / left.folder.name} has an unfinished run, at iteration"
        f" {left.step}, from before a change of {', '.join(left.changes)}; undo that and the same"
        f" command goes on there; python -m nanogpt2 runs{root} prune {left.folder.name} removes it"
    )


def _find(own: Path) -> Iterator[Left]:
    """Yield the runs beside `own` that have a state, and differ from it in few facts."""
    for folder in sorted(own.parent.glob("*/")):
        with suppress(*NOT_A_RUN):  # removed meanwhile, or damaged
            states = sorted(folder.glob("*-*.pt"))
            if folder != own and states and (changes := _compare(folder, own)):
                yield Left(folder, int(states[-1].name.partition("-")[0]), changes)


def _compare(folder: Path, own: Path) -> list[str]:
    """Return what changed from the run in `folder` to `own`; nothing where it is another run."""
    if not (folder / FACTS).exists():  # of a version that kept words alone
        same = files.read_text(folder / ABOUT) == files.read_text(own / ABOUT)
        return [NAMES["code"]] if same else []
    before, after = (files.read_json(each / FACTS) for each in (folder, own))
    changes = list_changes(before["config"], after["config"])
    for key in after:
        if key not in ("config", "weights") and before.get(key) != after[key]:
            changes += [NAMES[key]] if key in NAMES else list_changes(before, {key: after[key]})
    if not changes and before["weights"] != after["weights"]:  # which other changes change as well
        changes = ["the initial weights"]
    return changes if len(changes) <= MOST else []
