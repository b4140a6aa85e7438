"""Archives of tensors as torch.save writes them, and one thing more: a checksum of the whole file.

torch writes a CRC-32 of each entry and never looks at it. The SHA-256 stands in the comment at the
end of the archive, which every reader of such files passes over.
"""

import hashlib
import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

OLD_FORMAT = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # its first bytes
LABEL = b"nanogpt2 sha256 "
COMMENT_SIZE = len(LABEL) + 64
COMMENT_LENGTH = struct.pack("<H", COMMENT_SIZE)  # the archive's last two bytes before its comment
NO_COMMENT = struct.pack("<H", 0)  # what torch writes there
FOLDER = 0x10  # attribute of an entry; torch gives such a tensor the memory as it finds it
CHUNK = 2**20  # bytes


class Hashed:
    """A file that is written to, and the SHA-256 of what was."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()
        self.error: OSError | None = None  # such as of a full disk, which torch hides

    def write(self, content: bytes) -> int:
        """Write `content` after what was written before."""
        self.digest.update(content)
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Hand on what is written; torch calls it at the end."""
        self.file.flush()


def write_archive(file: BinaryIO, content: Mapping[str, Any]) -> str:
    """Write `content` to an empty file; return the SHA-256 of the archive without its comment."""
    hashed = Hashed(file)
    # an open file, unlike a path, leaves no trace of its name in the archive
    try:
        torch.save(dict(content), cast(BinaryIO, hashed))
    except RuntimeError:
        if hashed.error:
            raise hashed.error from None
        raise
    digest = hashed.digest.hexdigest()
    file.seek(-len(NO_COMMENT), os.SEEK_END)
    file.write(COMMENT_LENGTH + LABEL + digest.encode("ascii"))
    return digest


def read_archive(path: Path) -> Any:
    """Return the plain data and tensors of an archive that is whole, running no code of it.

    Raises BadZipFile where it is not as it was written, or would unpack to more than its size, and
    what torch.load raises.
    """
    with path.open("rb") as file:
        # before torch 1.6 it wrote no archive, but pickles one after the other
        if file.read(len(OLD_FORMAT)) != OLD_FORMAT:
            _check(file, path.stat().st_size)
    return torch.load(path, map_location="cpu", weights_only=True)


def checksum_of(path: Path) -> str:
    """Return what `write_archive` returned; BadZipFile where the file is not as it was written."""
    with path.open("rb") as file:
        stated = _stated_checksum(file)
        if not stated or stated != _hash_archive(file):
            raise zipfile.BadZipFile("another checksum")
    return stated


def _check(file: BinaryIO, size: int) -> None:
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        packed = any(
            entry.compress_type != zipfile.ZIP_STORED or entry.external_attr & FOLDER
            for entry in entries
        )
        if packed or sum(entry.file_size for entry in entries) > size:
            raise zipfile.BadZipFile("entries larger than the file")
        stated = _stated_checksum(file)
        if not stated and (archive.comment or archive.testzip()):
            raise zipfile.BadZipFile("an entry with another CRC-32, or a comment that is not ours")
    if stated and stated != _hash_archive(file):
        raise zipfile.BadZipFile("another checksum")


def _stated_checksum(file: BinaryIO) -> str:
    """Return the checksum in the comment; "" in a file of someone else's, which has none."""
    file.seek(-COMMENT_SIZE, os.SEEK_END)
    comment = file.read()
    return comment[len(LABEL) :].decode("latin-1") if comment.startswith(LABEL) else ""


def _hash_archive(file: BinaryIO) -> str:
    """Return the SHA-256 of the archive as torch wrote it; BadZipFile where it was written by none.

    The comment and its length are left out.
    """
    left = file.seek(-COMMENT_SIZE - len(COMMENT_LENGTH), os.SEEK_END)
    if file.read(len(COMMENT_LENGTH)) != COMMENT_LENGTH:
        raise zipfile.BadZipFile("a comment of another length")
    file.seek(0)
    digest = hashlib.sha256()
    while left:
        part = file.read(min(CHUNK, left))
        digest.update(part)
        left -= len(part)
    digest.update(NO_COMMENT)
    return digest.hexdigest()
