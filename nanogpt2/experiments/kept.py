"""What experiments have left in DVC's cache: the model of each, and the data it was trained on."""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from nanogpt2.base.system.errors import DataError, TrainingError
from nanogpt2.base.system.repository import list_experiments, read_committed
from nanogpt2.config import yaml12
from nanogpt2.experiments.trials.copies import Base, Copy
from nanogpt2.experiments.trials.dvc import dvc
from nanogpt2.experiments.trials.trial import Trial
from nanogpt2.train.distil.paths import FOLDER

MODEL, DATA, LOCK = "checkpoints/best_model.pt", "data/prepared", "dvc.lock"
TEACHERS = FOLDER.as_posix()


@dataclass(frozen=True)
class Kept:
    """What a finished trial has left, as its experiment's dvc.lock names it."""

    name: str
    model: Path  # in DVC's cache
    md5: str  # of the model file
    size: int  # of it, in bytes
    data: Path  # the list of the files of `data/prepared`, in DVC's cache


def find_kept(base: Base, trials: Sequence[Trial]) -> list[Kept]:
    """Return what each of finished `trials` has left, fetched where DVC's cache lacks it.

    DataError names an experiment whose files are nowhere.
    """
    commits = {each.name: each.commit for each in list_experiments(base.head)}
    wanted = [commits[trial.name] for trial in trials]
    texts = read_committed(wanted, [LOCK])
    found = []
    for trial, commit in zip(trials, wanted, strict=True):
        kept = _read_lock(trial.name, texts[commit, LOCK].decode("utf-8"), Path(base.cache))
        if not _is_whole(kept):
            _fetch(base, commit)
        if not _is_whole(kept):
            raise DataError(
                f"experiment {kept.name}: neither DVC's cache nor its remote has {MODEL} or {DATA};"
                f" dvc exp remove {kept.name}, and the same command runs it again"
            )
        found.append(kept)
    return found


def _read_lock(name: str, text: str, cache: Path) -> Kept:
    stages = yaml12.parse(text, name=LOCK)["stages"].values()
    outs = {out["path"]: out for stage in stages for out in stage.get("outs", [])}
    model, data = outs[MODEL], outs[DATA]
    return Kept(
        name,
        model=_place(cache, model["md5"]),
        md5=model["md5"],
        size=model["size"],
        data=_place(cache, data["md5"]),
    )


def _place(cache: Path, md5: str) -> Path:
    return cache / "files/md5" / md5[:2] / md5[2:]


def _is_whole(kept: Kept) -> bool:
    return kept.model.is_file() and kept.data.is_file() and all(f.is_file() for f in _files(kept))


def _files(kept: Kept) -> dict[Path, str]:
    """Return where the files of the data are, and their names."""
    cache = kept.data.parents[3]
    rows = json.loads(kept.data.read_text(encoding="utf-8"))
    return {_place(cache, row["md5"]): row["relpath"] for row in rows}


def _fetch(base: Base, commit: str) -> None:
    """Bring what an experiment has left from DVC's remote, where it has one."""
    copy = Copy(replace(base, tree=f"{commit}^{{tree}}", files=()), 0)
    try:
        copy.prepare((), anew=True)
        with suppress(TrainingError):
            dvc("fetch", "--quiet", "train", "prepare", folder=copy.project)
    finally:
        copy.remove()


@contextmanager
def data_of(kept: Kept) -> Iterator[Path]:
    """Give a folder with the data that a trial was trained on, as `data/prepared` has it."""
    with TemporaryDirectory() as folder:
        for file, name in _files(kept).items():
            place = Path(folder, name)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                place.symlink_to(file.absolute())
            except (OSError, NotImplementedError):  # Windows asks for a right
                shutil.copyfile(file, place)
        yield Path(folder)


def with_teachers(base: Base, teachers: Sequence[Kept]) -> Base:
    """Return `base` with the models of `teachers` in data/teachers, as `dvc add` puts them there.

    Only the copies have them, so that the person's workspace stays as it is: a file in that folder
    makes training another one.
    """
    texts = {f"{TEACHERS}/{each.name}.pt.dvc": _describe(each) for each in teachers}
    ignored = f"{TEACHERS}/.gitignore"
    had = read_committed([base.tree], [ignored]).get((base.tree, ignored), b"").decode("utf-8")
    lines = dict.fromkeys([*had.splitlines(), *(f"/{each.name}.pt" for each in teachers)])
    texts[ignored] = "".join(f"{line}\n" for line in lines)
    return replace(base, files=tuple(texts.items()))


def _describe(kept: Kept) -> str:
    return f"outs:\n- md5: {kept.md5}\n  size: {kept.size}\n  hash: md5\n  path: {kept.name}.pt\n"


def teachers_setting(teachers: Sequence[Kept]) -> str:
    """Return the `key=value` that names the teachers."""
    return f"teachers=[{','.join(f'{TEACHERS}/{each.name}.pt' for each in teachers)}]"
