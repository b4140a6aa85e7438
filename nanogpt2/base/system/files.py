"""Files: written aside and renamed, so that a reader never sees half of one."""

import csv
import errno
import glob
import hashlib
import io
import json
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from nanogpt2.base.system.errors import DataError, warn_once

# A file system's way to say that it does not do this at all: network shares, FUSE, exFAT.
NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}

TRIES, WAIT_SECONDS = 20, 0.1  # to replace a file on Windows
LOCK = "lock"  # in a folder that is being filled, held by the process that fills it


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; on success it is synced and renamed to it.

    After any error `path` is what it was before. Raises DataError where the disk is full or
    the folder cannot be written.
    """
    path = as_file(path)
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        file = temporary.open("xb")  # with the permissions that the user's umask gives
        try:
            with file:
                yield file
                file.flush()
                _sync(file.fileno())
            _rename(temporary, path)
        except BaseException:
            temporary.unlink()
            raise
        _sync_folder(path.parent)


def _rename(temporary: Path, path: Path) -> None:
    """Put `temporary` in the place of `path`.

    Windows refuses that while anybody reads `path`, such as a page that follows the run, or a
    virus scanner: it is tried again for a while.
    """
    for _ in range(TRIES if sys.platform == "win32" else 0):
        with suppress(PermissionError):
            temporary.replace(path)
            return
        time.sleep(WAIT_SECONDS)
    temporary.replace(path)


def as_path(path: str | Path) -> Path:
    """Return `path`; DataError where no file can have this name."""
    try:
        if b"\0" in os.fsencode(path):
            raise DataError(f"{str(path)!r}: no file name: it holds a NUL character")
    except UnicodeEncodeError as error:
        raise DataError(f"{str(path)!r}: no file name: it holds half a surrogate pair") from error
    return Path(path)


def exists(path: str | Path) -> bool:
    """Return whether `path` is there, as far as it can be known: not a name that is too long."""
    with suppress(OSError, ValueError):
        return Path(path).exists()
    return False


def is_folder(path: str | Path) -> bool:
    """Return whether `path` is a folder, as far as it can be known."""
    with suppress(OSError, ValueError):
        return Path(path).is_dir()
    return False


def as_file(path: str | Path) -> Path:
    """Return `path`; DataError where no file can be written with this name."""
    path = as_path(path)
    if not path.name or is_folder(path):
        raise DataError(f"{path}: cannot be written: it is a folder; choose the name of a file")
    return path


@contextmanager
def write_errors(path: str | Path) -> Iterator[None]:
    """Turn an OSError met while writing `path` into a DataError of one line."""
    try:
        yield
    except OSError as error:
        advice = "free some space" if error.errno == errno.ENOSPC else "choose a writable place"
        raise DataError(f"{path}: cannot be written: {error.strerror}; {advice}") from error


def check_writable(*paths: str | Path) -> None:
    """Raise DataError where a file at one of `paths` could not be written; nothing stays behind."""
    for path in map(as_file, paths):
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path.parent):
                pass


def _sync(handle: int) -> None:
    """Bring what was written to the disk, where the file system knows how."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
        warn_once(f"files may not survive a power cut here: fsync: {error.strerror}")


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut; the file is there without it.

    Windows has no such call, and some file systems refuse it.
    """
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        warn_once(f"files may not survive a power cut here: fsync: {error.strerror}")


def make_newer(*paths: Path) -> None:
    """Give each file a modification time of a later second than the one it has.

    `dvc exp run` writes new values in the second in which it had brought back the old ones. Where
    they are as long, git would take the file for the committed one, and `git restore` would leave
    it: it compares size and seconds.
    """
    for path in paths:
        with suppress(OSError):  # such as a file of another user's
            times = path.stat()
            os.utime(path, ns=(times.st_atime_ns, max(time.time_ns(), times.st_mtime_ns + 10**9)))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def write_text(path: str | Path, text: str) -> None:
    r"""Write `text` as UTF-8 with `\n` newlines; half of a surrogate pair becomes `?`."""
    write_bytes(path, text.encode("utf-8", "replace"))


def rounded(value: float) -> float:
    """Return `value` with 6 digits after the point, as every tracked figure is written."""
    return round(value, 6)


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; keys keep their order."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows`, at least one, with a header line of the first row's keys."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_bytes(path: str | Path) -> bytes:
    """Return the content of `path`; DataError where it cannot be read."""
    try:
        return as_path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def read_text(path: str | Path) -> str:
    """Return the UTF-8 text of `path`; DataError where it cannot be read or is not UTF-8."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start}): save it as UTF-8") from error


def parse_object(content: str | bytes | None) -> dict[str, Any]:
    """Return the object in JSON `content`, an empty one where there is none."""
    try:
        found = json.loads(content) if content else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def read_json(path: str | Path) -> Any:
    """Return the JSON value in `path`; DataError where it is missing or damaged."""
    try:
        return json.loads(read_text(path))
    except RecursionError as error:
        raise DataError(f"{path}: damaged JSON: nested too deeply") from error
    except ValueError as error:  # also a number of more digits than Python reads
        raise DataError(f"{path}: damaged JSON: {error}") from error


def sha256(content: bytes | memoryview) -> str:
    """Return the SHA-256 of `content` in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def replace_folder(folder: str | Path, fill: Callable[[Path], None]) -> None:
    """Fill a new folder and put it in the place of `folder`, which stays as it was on any error."""
    folder = as_path(folder)
    with write_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        with (
            tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as aside,
            FileLock(Path(aside, LOCK)),
        ):
            new, old = Path(aside) / "new", Path(aside) / "old"
            new.mkdir()
            fill(new)
            if folder.exists():
                folder.replace(old)
            try:
                new.replace(folder)
            except OSError:
                old.replace(folder)
                raise


def _remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed had filled to put it in the place of `folder`.

    One that still works holds its lock.
    """
    for aside in folder.parent.glob(f".{glob.escape(folder.name)}.*"):
        if Path(aside, LOCK).is_file():
            with suppress(Timeout):
                with FileLock(Path(aside, LOCK), timeout=0):
                    shutil.rmtree(aside, ignore_errors=True)
                shutil.rmtree(aside, ignore_errors=True)  # the lock too: Windows keeps open files
