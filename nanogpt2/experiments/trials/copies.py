"""Copies of the project in which the trials of a sweep run, a trial at a time in each.

`dvc exp run`, also with --temp, writes a trial's values into the params.yaml of the folder where it
is called, and takes HEAD away for a moment: killed there, it leaves the person's own files so. Of
several at once in one repository each may take another's experiment from the list that they share.
Here each has a repository of its own, which borrows the objects of the person's; a finished
experiment is fetched from it, which git does whole or not at all.
"""

import configparser
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from nanogpt2.base.system.errors import ConfigError, DataError, TrainingError
from nanogpt2.base.system.files import sha256, write_text
from nanogpt2.config import yaml12
from nanogpt2.experiments.trials.dvc import METRICS, dvc, git

PLACE = Path(".dvc/tmp/sweeps")  # of the copies, in the project
STATES = ".resume"  # of unfinished runs, which all copies share
QUIET = ("-c", "gc.auto=0", "-c", "maintenance.auto=false", "-c", "advice.detachedHead=false")


@dataclass(frozen=True)
class Base:
    """What the trials start from: the last commit, and the files as they are now, as git's tree."""

    project: Path
    prefix: str  # of the project in its repository, such as `models/small/`, or empty
    head: str
    tree: str
    cache: str
    files: tuple[tuple[str, str], ...] = ()  # paths and texts that only the copies have besides

    @property
    def identity(self) -> str:
        """Return what changes with any file that git knows."""
        more = f":{sha256(repr(self.files).encode('utf-8'))[:12]}" if self.files else ""
        return f"{self.head}:{self.tree}{more}"

    @property
    def namespace(self) -> str:
        """Return where DVC keeps the experiments of this commit."""
        return f"refs/exps/{self.head[:2]}/{self.head[2:]}"


def read_base() -> Base:
    """Return the base in the current folder; DataError where no DVC project is here."""
    project = Path.cwd()
    if not Path(".dvc").is_dir() or not Path("dvc.yaml").is_file():
        raise DataError(f"{project}: no project of DVC with a dvc.yaml; go to its folder")
    head = git(project, "rev-parse", "HEAD")
    git(project, "status", "--porcelain")  # or a folder that was copied stashes nothing, and fails
    changed = git(project, "stash", "create")  # a commit of the changes; touches no file
    tree = git(project, "rev-parse", f"{changed or head}^{{tree}}")
    prefix = git(project, "rev-parse", "--show-prefix")
    return Base(project, prefix, head, tree, dvc("cache", "dir").strip())


def check_inputs(base: Base, values: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the .dvc files of what the trials with `values` of params.yaml read.

    Raises ConfigError for what only the project has, since neither git nor DVC knows of it, and
    for what has changed since `dvc add`.
    """
    keys = ("corpus", "init_from", "tokenizer")
    paths = {str(each[key]) for each in values for key in keys}
    paths |= {str(each["sample"]["prompt_file"]) for each in values}
    paths |= {str(path) for each in values for path in each["teachers"]}
    listed = git(base.project, "ls-tree", "-r", "--name-only", "-z", "--full-tree", base.tree)
    known = {name.removeprefix(base.prefix) for name in listed.split("\0")}
    known |= {str(place) for name in known for place in Path(name).parents} | set(_outputs())
    needed, lines = set[str](), list[str]()
    for path in sorted(path for path in paths if _is_inside(base.project, path)):
        there = (base.project / path).exists()
        around = [Path(path), *Path(path).parents]
        if tracked := [f"{each}.dvc" for each in around if f"{each}.dvc" in known]:
            needed.add(tracked[0])
            if not there:
                lines.append(f"{path} is not here: dvc checkout {path}, or dvc pull {path}")
        elif there and Path(path).as_posix() not in known:
            add = f"dvc add {path} && git add {path}.dvc"
            lines.append(f"{path}: neither git nor DVC knows of it, so no copy has it: {add}")
    for name in sorted(needed if not lines else ()):
        try:
            dvc("status", "--quiet", name)
        except TrainingError:
            path = name.removesuffix(".dvc")
            lines.append(f"{path} is not as {name} records it: dvc add {path}, or dvc checkout")
    if lines:
        raise ConfigError("\n".join(lines))
    return sorted(needed)


def _is_inside(project: Path, path: str) -> bool:
    return (project / path).resolve().is_relative_to(project.resolve())


def _outputs() -> Iterator[str]:
    """Yield what the pipeline's stages write."""
    for stage in yaml12.read("dvc.yaml").get("stages", {}).values():
        for each in stage.get("outs", []):
            yield next(iter(each)) if isinstance(each, Mapping) else each


class Copy:
    """A copy of the project, in the folder of its number below PLACE."""

    def __init__(self, base: Base, number: int) -> None:
        self.base, self.number = base, number
        self.root = base.project / PLACE / str(number)
        self.project = self.root / base.prefix
        self.note = self.root.with_suffix(".json")
        self.has: set[str] = set()

    # --- What runs in it ---

    def write_note(self, trial: str) -> None:
        """Note which trial runs here, for a sweep that comes after one that was killed."""
        write_text(self.note, json.dumps({"trial": trial, "base": self.base.identity}) + "\n")

    def read_note(self) -> str | None:
        """Return the trial that was begun here on this base, if one was."""
        with suppress(OSError, ValueError, KeyError):
            note = json.loads(self.note.read_text(encoding="utf-8"))
            return str(note["trial"]) if note["base"] == self.base.identity else None
        return None

    def processes(self) -> list[psutil.Process]:
        """Return the processes that work here: DVC, its stages, and what they started."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if Path(process.cwd()).is_relative_to(self.root) and _works(process):
                    found.append(process)
        return found

    def end(self, seconds: float = 60.0) -> None:
        """Ask what works here to end, which saves the state of training; kill what does not."""
        for ask in (psutil.Process.terminate, psutil.Process.kill):
            processes = self.processes()
            for process in processes:
                with suppress(psutil.Error):
                    ask(process)
            psutil.wait_procs(processes, timeout=seconds)
            if not self.processes():
                return

    # --- Its files ---

    def prepare(self, needed: Iterable[str], *, anew: bool) -> None:
        """Make its files those of the base, and bring the data of the `needed` .dvc files."""
        if anew or not (self.root / ".git").is_dir():
            self._make()
        else:
            try:
                self._reset()
            except TrainingError:
                self._make()
        if missing := [name for name in needed if name not in self.has]:
            dvc("checkout", "--quiet", *missing, folder=self.project)
            self.has |= set(missing)

    def record(self, stage: str) -> None:
        """Let DVC's cache have what `stage` has written here: whoever would have was killed.

        Where that fails too, the stage runs again.
        """
        for lock in Path(self.project, ".dvc/tmp").glob("rwlock*"):
            lock.unlink(missing_ok=True)
        with suppress(TrainingError):
            dvc("commit", "--quiet", "--force", stage, folder=self.project)

    def _make(self) -> None:
        self.remove()
        self.has.clear()
        self.root.parent.mkdir(parents=True, exist_ok=True)
        top = git(self.base.project, "rev-parse", "--show-toplevel")
        git(Path(top), *QUIET, "clone", "--quiet", "--shared", "--no-checkout", top, str(self.root))
        for key in ("user.name", "user.email"):
            with suppress(TrainingError):
                git(self.root, "config", key, git(self.base.project, "config", "--get", key))
        with Path(self.root, ".git/info/exclude").open("a", encoding="utf-8") as file:
            file.write(f"/{self.base.prefix}{STATES}\n")
        self._reset()
        self._configure()
        states = self.base.project / STATES
        states.mkdir(exist_ok=True)
        with suppress(OSError, NotImplementedError):  # else an unfinished trial stays in its copy
            (self.project / STATES).symlink_to(states, target_is_directory=True)

    def _reset(self) -> None:
        git(self.root, *QUIET, "update-ref", "--no-deref", "HEAD", self.base.head)
        git(self.root, "read-tree", "--reset", "-u", self.base.tree)
        git(self.root, "clean", "-qfd")
        for path, text in self.base.files:
            write_text(self.project / path, text)
            git(self.project, "add", "--force", path)  # which is enough for an experiment of DVC
        self._forget(f"{self.base.namespace}/*")

    def _forget(self, pattern: str) -> None:
        """Remove experiments, which the person's repository has by now."""
        found = git(self.root, "for-each-ref", "--format=%(refname)", pattern)
        for reference in found.splitlines():
            git(self.root, "update-ref", "-d", reference)

    def _configure(self) -> None:
        """Write DVC's local configuration: the person's, and their cache.

        DVC itself would write it in ASCII alone, and end with a codec error.
        """
        settings = configparser.RawConfigParser(strict=False)
        settings.optionxform = str  # type: ignore[assignment,method-assign]
        settings.read(self.base.project / ".dvc/config.local", encoding="utf-8")
        if not settings.has_section("cache"):
            settings.add_section("cache")
        settings.set("cache", "dir", self.base.cache)
        with Path(self.project, ".dvc/config.local").open("w", encoding="utf-8") as file:
            settings.write(file)

    def remove(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.note.unlink(missing_ok=True)

    # --- Its result ---

    def result(self, name: str) -> str | None:
        """Return the commit of the experiment `name`, None where it has not ended well."""
        if not (self.root / ".git").is_dir():
            return None
        try:
            return git(self.root, "rev-parse", "--verify", f"{self.base.namespace}/{name}")
        except TrainingError:
            return None

    def take(self, name: str) -> Mapping[str, Any]:
        """Bring the experiment `name` into the person's repository; return its figures."""
        reference = f"{self.base.namespace}/{name}"
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--force")
        git(
            self.base.project, *QUIET, "fetch", *options, str(self.root), f"{reference}:{reference}"
        )
        text = git(self.base.project, "show", f"{reference}:{self.base.prefix}{METRICS}")
        figures: Mapping[str, Any] = json.loads(text)
        return figures


def _works(process: psutil.Process) -> bool:
    """Return whether a process is alive, and not the shell of a person who looks around."""
    interactive = sys.platform != "win32" and process.terminal() is not None
    return process.status() != psutil.STATUS_ZOMBIE and not interactive
