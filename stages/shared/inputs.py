"""What DVC records of a stage: its parameters and files, as they are when it has ended.

They must be those that it began with, or the record is of a run that never was.
"""

from pathlib import Path
from typing import Any

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.base.system.words import name_some
from nanogpt2.config import yaml12

CODE = ("nanogpt2/", "stages/")
SOURCES = {".py", ".c", ".h"}
LARGE = 2**20  # bytes
SHOWN = 3


class Inputs:
    """The parameters and files that dvc.yaml lists for `stage`, as they are now.

    What is named there by a parameter (`${corpus}`), its stage looks at itself.
    """

    def __init__(self, stage: str) -> None:
        listed = yaml12.read("dvc.yaml")["stages"][stage]
        self.stage, self.keys = stage, listed.get("params", [])
        self.paths = [path for path in listed.get("deps", []) if not path.startswith("$")]
        self.before = self._look()

    def check(self) -> None:
        """Raise ConfigError where one of them has changed since."""
        now = self._look()
        names = sorted(name for name in self.before | now if self.before.get(name) != now.get(name))
        if not names:
            return
        raise ConfigError(
            f"{name_some(names, SHOWN)} changed while {self.stage} ran, and DVC would record"
            " what is there now; put it back and give the same command to keep what was computed,"
            " or give it as it is to run anew"
        )

    def _look(self) -> dict[str, Any]:
        values = yaml12.read("params.yaml")
        found: dict[str, Any] = {f"params.yaml: {key}": values.get(key) for key in self.keys}
        for path in self.paths:
            for file in sorted(Path(path).rglob("*")) if Path(path).is_dir() else [Path(path)]:
                if file.is_file() and (not path.startswith(CODE) or file.suffix in SOURCES):
                    found[file.as_posix()] = _state_of(file)
        return found


def _state_of(path: Path) -> object:
    """Return what differs once `path` has changed: its bytes, or a large one's size and time."""
    status = path.stat()
    if status.st_size < LARGE:
        return path.read_bytes()
    return status.st_size, status.st_mtime_ns
