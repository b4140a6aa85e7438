"""Segments: pieces of a corpus in one form, cleaned, each in a file as UTF-8, with a record.

A segment holds text of one or more documents, without what separates them. What later passes ask of
it stands in its record.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nanogpt2.config.groups import CleanConfig
from nanogpt2.text.cleaning.cleaner import Cleaner, Tally
from nanogpt2.text.cleaning.controls import find_controls
from nanogpt2.text.cleaning.licences import Licences
from nanogpt2.text.cleaning.mojibake import find_mojibake

KEY_CHARACTERS = 1 << 12  # of a document, whose hash chooses its split
LOOK = 1 << 12  # bytes that have most of the characters of a text


@dataclass(frozen=True)
class Segment:
    """The record of a segment: its file's name, sizes, and the documents that begin in it."""

    name: str
    characters: int
    bytes: int  # of UTF-8
    starts: npt.NDArray[np.int64]  # characters before each document that begins here
    keys: npt.NDArray[np.uint64]  # hash of each of them
    points: npt.NDArray[np.uint32]  # code points that its text has, sorted


def make_cleaners(clean: CleanConfig) -> dict[str, Cleaner]:
    """Return the cleaners that are switched on, in the order in which a text goes through them."""
    found: dict[str, Cleaner] = {}
    if clean.encoding == "auto":
        found["encoding"] = Cleaner(find_mojibake)
    if clean.control_characters == "remove":
        found["control_characters"] = Cleaner(find_controls)
    if clean.licences == "remove":
        found["licences"] = Licences()
    return found


def key_of(text: str) -> int:
    """Return the hash (64 bits) of a document, by its beginning: it chooses its split."""
    head = text[:KEY_CHARACTERS].encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(head, digest_size=8).digest(), "little")


class SegmentWriter:
    """Cleans and gathers the text of documents, and writes a segment when there is enough of it."""

    def __init__(self, folder: Path, number: int, block_size: int, clean: CleanConfig) -> None:
        self.folder, self.number, self.block_size = folder, number, block_size
        self.cleaners = make_cleaners(clean)
        self.segments: list[Segment] = []
        self.is_blank = True
        self._texts: list[str] = []
        self._size = 0
        self._starts: list[int] = []
        self._keys: list[int] = []

    def begin(self, key: int) -> None:
        """Begin a document whose hash is `key`."""
        self._starts.append(self._size)
        self._keys.append(key)

    def add(self, text: str) -> None:
        """Add text of the document that was begun last."""
        for cleaner in self.cleaners.values():
            text = cleaner.push(text)
        self._gather(text)

    def end(self) -> None:
        """End the document."""
        cleaners = list(self.cleaners.values())
        for number, cleaner in enumerate(cleaners):
            rest = cleaner.finish()
            for following in cleaners[number + 1 :] if rest else ():
                rest = following.push(rest)
            self._gather(rest)

    def removed(self) -> dict[str, Tally]:
        """Return what each cleaner took."""
        return {name: cleaner.tally for name, cleaner in self.cleaners.items()}

    def _gather(self, text: str) -> None:
        self._texts.append(text)
        self._size += len(text)
        self.is_blank = self.is_blank and (not text or text.isspace())
        if self._size >= self.block_size:
            self._write()

    def finish(self) -> list[Segment]:
        """Write what is left and return the segments, in order."""
        if self._size:
            self._write()
        return self.segments

    def _write(self) -> None:
        name = f"{self.number:06d}-{len(self.segments):04d}"
        text = "".join(self._texts)
        content = text.encode("utf-8")
        Path(self.folder, name).write_bytes(content)
        starts, keys = np.array(self._starts, np.int64), np.array(self._keys, np.uint64)
        points = code_points_of(text, content)
        self.segments.append(Segment(name, self._size, len(content), starts, keys, points))
        self._texts, self._size, self._starts, self._keys = [], 0, [], []


def code_points_of(text: str, content: bytes) -> npt.NDArray[np.uint32]:
    """Return the code points that `text`, whose UTF-8 is `content`, has, sorted."""
    if text.isascii():
        return np.array(sorted(distinct_bytes(content)), np.uint32)
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    used = np.zeros(0x110000, np.bool_)
    used[codes] = True
    return np.flatnonzero(used).astype(np.uint32)


def distinct_bytes(content: bytes) -> set[int]:
    """Return the bytes that `content` has."""
    known = set[int]()
    while content:
        known.update(content[:LOOK])
        content = content.translate(None, bytes(known))
    return known


def read_segment(folder: Path, segment: Segment) -> str:
    """Return the text of a segment."""
    return Path(folder, segment.name).read_bytes().decode("utf-8")
