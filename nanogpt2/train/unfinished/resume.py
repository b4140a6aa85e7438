"""The states of runs that are not finished, kept until they are: `<root>/<fingerprint>/`.

The fingerprint names everything on which a run's result depends, so that a run goes on only from
its own state.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from filelock import FileLock, Timeout

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import TrainingError, warn_once
from nanogpt2.base.system.signals import Interrupted, caught_signals
from nanogpt2.device.group import SINGLE, Group
from nanogpt2.model import checkpoint
from nanogpt2.model.archive import checksum_of
from nanogpt2.report.unfinished import ABOUT, FACTS

STATES_KEPT = 2
PARTIAL = "partial"  # name of a state until it is whole
LOCK_SECONDS = 5.0  # how long an interrupted run may take to save and let go
WAIT_SECONDS = 0.5  # between two looks at what a signal or the main process of a group says


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return a short name of plain `facts`; the same facts give the same name."""
    return files.sha256(json.dumps(facts, sort_keys=True).encode())[:16]


class StateFiles:
    """The states of one run on disk; the name of each file carries its step and its checksum.

    In a `group` the main process alone locks, writes and removes; the others read what it chose.
    """

    def __init__(self, folder: Path, group: Group = SINGLE) -> None:
        self.folder = folder
        self.group = group
        self.lock = FileLock(_lock_path(folder))

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Keep other processes from this run.

        Where one has it already, `wait` for its end, or raise TrainingError.
        """
        if not self.group.from_main(lambda: self._acquire(0.0 if wait else LOCK_SECONDS)):
            if not wait:
                raise TrainingError(
                    f"this run is under way in another process ({self.folder}); wait for it or stop"
                    " it"
                )
            self._wait()
        try:
            yield
        finally:
            self.lock.release()

    def _wait(self) -> None:
        """Return once the process that has this run is through with it; it knows that one waits."""
        awaited = self._awaited_path()
        self.group.from_main(lambda: files.write_text(awaited, ""))
        warn_once(f"this run is under way in another process ({self.folder}): waiting for it")
        try:
            with caught_signals(self.group.agreement()) as interruption:
                while not self.group.from_main(lambda: self._acquire(WAIT_SECONDS)):
                    interruption.check()
        except Interrupted as signal:
            raise TrainingError(f"interrupted by {signal} while it waited") from signal
        finally:
            if self.group.is_main:
                awaited.unlink(missing_ok=True)

    def _acquire(self, seconds: float) -> bool:
        """Return whether this process has the lock after `seconds`, or no lock can be had."""
        with files.write_errors(self.folder):
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.lock.acquire(timeout=seconds)
        except Timeout:
            return False
        except (OSError, NotImplementedError) as error:  # network shares often keep no locks
            warn_once(
                f"{self.folder}: no lock keeps a second process from this run: {error}; do not"
                " start it twice"
            )
        with files.write_errors(self.folder):
            self.folder.mkdir(exist_ok=True)
        return True

    def is_awaited(self) -> bool:
        """Return whether another process waits for this run."""
        return self.group.from_main(lambda: self._awaited_path().exists())

    def _awaited_path(self) -> Path:
        return self.folder.with_suffix(".awaited")

    def is_under_way(self) -> bool:
        """Return whether a process has the lock, without making one just to look."""
        if not _lock_path(self.folder).exists():
            return False
        try:
            with FileLock(_lock_path(self.folder), timeout=0):
                return False
        except Timeout:
            return True
        except (OSError, NotImplementedError):  # where nothing can be locked nothing is
            return False

    def save(self, step: int, content: Mapping[str, Any]) -> None:
        """Add a state; all but the last two are removed. DataError where it cannot be written."""
        gathered = self.group.gather(content)
        self.group.from_main(lambda: self.write(step, gathered))

    def write(self, step: int, content: Mapping[str, Any]) -> None:
        """Do it in the main process, of a state that is gathered."""
        partial = self.folder / PARTIAL
        checksum = checkpoint.save_tensors(partial, content)
        partial.replace(self.folder / f"{step:010d}-{checksum}.pt")
        for old in self.paths()[:-STATES_KEPT]:
            old.unlink()

    def paths(self) -> list[Path]:
        """Return the files of the states, oldest first."""
        return sorted(self.folder.glob("*-*.pt"))

    def load(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Return the newest whole state, or None, and a warning for each damaged one."""
        path, warnings = self.group.from_main(self._find_newest)
        return None if path is None else checkpoint.load_tensors(path), warnings

    def _find_newest(self) -> tuple[Path | None, list[str]]:
        for half in self.folder.glob(f".{PARTIAL}.*"):  # of a process that was killed
            half.unlink()
        warnings: list[str] = []
        for path in reversed(self.paths()):
            try:
                if path.stem.split("-")[1] == checksum_of(path):
                    return path, warnings
            except (OSError, BadZipFile):
                pass  # as damaged as one whose name has another checksum
            warnings.append(f"warning: {path} is damaged: skipped")
        return None, warnings

    def describe(self, text: str, facts: Mapping[str, Any]) -> None:
        """Note in words and by its facts which run this is, for those who look at what is left."""
        self.group.from_main(lambda: files.write_text(self.folder / ABOUT, text))
        self.group.from_main(lambda: files.write_json(self.folder / FACTS, facts))

    def facts(self) -> Any:
        """Return what `describe` was told; DataError where that is not there or damaged."""
        return files.read_json(self.folder / FACTS)

    def clear(self) -> None:
        """Remove all states."""
        self.group.from_main(self._clear)

    def _clear(self) -> None:
        for path in self.paths():
            path.unlink()

    def delete(self) -> None:
        """Remove all that is kept of the run."""
        self.group.from_main(self._delete)

    def _delete(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):  # Windows keeps it until it is released, and removes it then
            _lock_path(self.folder).unlink()


def _lock_path(folder: Path) -> Path:
    return folder.with_suffix(".lock")


def is_wanted() -> bool:
    """Return whether a run may go on from its state: not with NANOGPT2_RESUME=0."""
    return os.environ.get("NANOGPT2_RESUME") != "0"
