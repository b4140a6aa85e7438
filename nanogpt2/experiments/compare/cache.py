"""DVC's cache of outputs, read as files: `files/md5/ab/cdef...`; a folder is a list of its files.

Asking DVC itself would take a second for each process, and import it.
"""

import configparser
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError

MOST = 200_000  # bytes of a file that are read


def find_cache(project: Path) -> Path:
    """Return the folder of the cache of `project`, as DVC's configuration has it."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    own = Path(os.environ.get("DVC_GLOBAL_CONFIG_DIR") or home / "dvc") / "config"
    for path in (project / ".dvc/config.local", project / ".dvc/config", own):
        if found := _read_setting(path):
            return path.parent / Path(found).expanduser()  # relative to the file that has it
    return project / ".dvc/cache"


def _read_setting(path: Path) -> str | None:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError, OSError):  # DVC itself will complain
        return None
    return parser.get("cache", "dir", fallback=None)


class Cache:
    """Reads outputs by the hashes of dvc.lock; each file once."""

    def __init__(self, project: Path) -> None:
        self.folder = find_cache(project)
        self.read = cache(self._read)

    def _read(self, md5: str) -> bytes | None:
        """Return the first MOST bytes of what has this hash, None where the cache lacks it."""
        if len(md5.removesuffix(".dir")) != 32 or not md5.removesuffix(".dir").isalnum():
            return None
        path = self.folder / "files/md5" / md5[:2] / md5[2:]
        try:
            with path.open("rb") as file:
                return file.read() if md5.endswith(".dir") else file.read(MOST)
        except OSError:
            return None

    def list_folder(self, md5: str) -> dict[str, str] | None:
        """Return the hashes of a folder's files by their names, None where the cache lacks it."""
        content = self.read(md5)
        try:
            rows = json.loads(content) if content is not None else None
            return None if rows is None else {row["relpath"]: row["md5"] for row in rows}
        except (ValueError, KeyError, TypeError):  # not what DVC writes
            return None

    def read_text(self, md5: str | None, name: str = "") -> str | None:
        """Return the text of a file, or of the file `name` in a folder; None where it lacks it."""
        if md5 and name:
            md5 = (self.list_folder(md5) or {}).get(name)
        content = self.read(md5) if md5 else None
        return None if content is None else content.decode("utf-8", "replace")

    def read_json(self, md5: str | None, name: str) -> Mapping[str, Any] | None:
        """Return the object in the JSON file `name` of a folder; None where the cache lacks it."""
        text = self.read_text(md5, name)
        try:
            found = None if text is None else json.loads(text)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


def read_here(path: Path) -> bytes | None:
    """Return the content of a file of the workspace, None where there is none."""
    try:
        return files.read_bytes(path) if files.exists(path) else None
    except DataError:
        return None
