"""Checksums: a JSON file that carries its own, and a folder whose list names those of its files."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError

CHECKSUM = "checksum"  # the key of a JSON file's own
FILES = "files"  # the key under which a list has the SHA-256 of each file of its folder
SOURCES = (".py", ".c", ".h")
DAMAGED = "damaged: its SHA-256 is not the one that its folder's list has"


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's content; DataError where it cannot be read."""
    try:
        with files.as_path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def write_sealed(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write `value` as JSON with one more key, the checksum of all the others."""
    files.write_json(path, {**value, CHECKSUM: _hash_value(value)})


def read_sealed(path: str | Path, *, required: bool = True) -> Any:
    """Return the JSON value that `write_sealed` was given; DataError where it is another now.

    One that is not `required` to have a checksum may be made by hand.
    """
    value = files.read_json(path)
    found = value.pop(CHECKSUM, None) if isinstance(value, dict) else None
    if found is None and required:
        raise DataError(f"{path}: it has no checksum: damaged, or made by an older version")
    if found is not None and found != _hash_value(value):
        raise DataError(f"{path}: damaged: its checksum is not that of its content")
    return value


def _hash_value(value: Any) -> str:
    return files.sha256(json.dumps(value).encode("ascii"))


def hash_files(folder: str | Path, names: Iterable[str]) -> dict[str, str]:
    """Return the SHA-256 of the files `names` in `folder`: what a list has under the key FILES."""
    return {name: hash_file(Path(folder, name)) for name in sorted(names)}


def check_files(folder: str | Path, list_name: str) -> dict[str, Any]:
    """Return the list `list_name` of `folder`; DataError names each file that differs from it."""
    listed = read_list(folder, list_name)
    wrong = [line for name in listed[FILES] if (line := describe_damage(folder, listed, name))]
    if wrong:
        raise DataError("\n".join(wrong))
    return listed


def read_list(folder: str | Path, list_name: str) -> dict[str, Any]:
    """Return the sealed JSON file that lists the files of `folder`; DataError where it does not."""
    path = Path(folder, list_name)
    listed = read_sealed(path)
    names = listed.get(FILES) if isinstance(listed, dict) else None
    if not isinstance(names, dict) or not all(map(_is_inside, names)):
        raise DataError(f"{path}: damaged: it lists no files of its folder")
    return dict(listed)


def _is_inside(name: str) -> bool:
    path = Path(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def describe_damage(folder: str | Path, listed: Mapping[str, Any], name: str) -> str:
    """Return a line where the file `name` of `folder` is not the one that is listed, else ""."""
    try:
        found = hash_file(Path(folder, name))
    except DataError as error:
        return str(error)
    return "" if found == listed[FILES].get(name) else f"{Path(folder, name)}: {DAMAGED}"


def hash_code(rooms: Iterable[str]) -> str:
    """Return the SHA-256 of the sources in the library's folders `rooms`, which DVC hashes."""
    library = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for room in rooms for path in library.joinpath(room).rglob("*")):
        if path.suffix in SOURCES:
            digest.update(path.relative_to(library).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()
