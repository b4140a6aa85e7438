"""The first pass over a corpus: documents in one form, cleaned, in segments of some MB on disk.

A segment holds text of one or more documents, without what separates them, as UTF-8. What later
passes ask of it stands in its record, so that no text is read twice from its source.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nanogpt2.base.checksums import hash_file
from nanogpt2.base.errors import DataError
from nanogpt2.cleaning.cleaner import Cleaner, Tally
from nanogpt2.cleaning.controls import find_controls
from nanogpt2.cleaning.licences import Licences
from nanogpt2.cleaning.mojibake import find_mojibake
from nanogpt2.config.config import CleanConfig
from nanogpt2.prepare.recipe import Recipe
from nanogpt2.text import blocks, corpus, plain
from nanogpt2.text.blocks import Span
from nanogpt2.text.records import count_row_groups, is_table, kind_of, read_records
from nanogpt2.text.streams import open_utf8, packing
from nanogpt2.tokens.normal import BYTE_ORDER_MARK, normalise, normalise_within

KEY_CHARACTERS = 1 << 12  # of a document, whose hash chooses its split
LEAST_BLOCK_BYTES = KEY_CHARACTERS  # then the first span of a file has as many characters
LOOK = 1 << 16  # bytes that have most of the characters of a text
BLOCKS_OF_PART = 4  # that one worker reads at a time


@dataclass(frozen=True)
class Piece:
    """What a worker reads of a source: all of it, or a span, and about how many bytes it has.

    A span is of bytes; of a table it is of row groups.
    """

    path: Path
    span: Span
    bytes: int


@dataclass(frozen=True)
class Segment:
    """The record of a segment: its file's name, sizes, and the documents that begin in it."""

    name: str
    characters: int
    bytes: int  # of UTF-8
    starts: npt.NDArray[np.int64]  # characters before each document that begins here
    keys: npt.NDArray[np.uint64]  # hash of each of them
    points: npt.NDArray[np.uint32]  # code points that its text has, sorted


@dataclass(frozen=True)
class Scan:
    """What a part of a corpus holds: its segments, and what was read, passed over and removed."""

    segments: list[Segment]
    bytes: int  # of the files that were read
    sha256: list[str]  # of each piece as it was read: of its bytes where they are plain text, else
    # of the whole file, with its first piece
    is_blank: bool  # whether all of it is white space
    removed: dict[str, Tally]  # by switch of `clean`
    problems: list[str] = field(default_factory=list)  # a line for each file that is no text


def plan_parts(paths: Sequence[Path], recipe: Recipe, *, block_bytes: int) -> Iterator[list[Piece]]:
    """Yield what one worker reads after the other: pieces of about four blocks together."""
    part_bytes = BLOCKS_OF_PART * block_bytes
    part: list[Piece] = []
    size = 0
    for path in paths:
        for span, n_bytes in _plan_spans(path, recipe, part_bytes):
            part.append(Piece(path, span, n_bytes))
            size += n_bytes
            if size >= part_bytes:
                yield part
                part, size = [], 0
    if part:
        yield part


def _plan_spans(path: Path, recipe: Recipe, part_bytes: int) -> Iterator[tuple[Span, int]]:
    """Yield what is read together of a file, with its size: bytes, or row groups of a table."""
    n_bytes = path.stat().st_size
    # an encoding and a licence show at the beginning of a text
    whole = recipe.clean.encoding == "auto" or recipe.clean.licences == "remove"
    if n_bytes <= part_bytes or packing(path) or (kind_of(path) == "text" and whole):
        yield Span(0, None), n_bytes
        return
    if is_table(path):
        groups = count_row_groups(path)
        for group in range(groups):
            yield Span(group, group + 1), n_bytes // groups
        return
    if kind_of(path) == "records":  # lines that begin in a span
        starts = range(0, n_bytes, part_bytes)
        spans = [Span(start, min(start + part_bytes, n_bytes)) for start in starts]
    else:
        spans = blocks.plan_spans(path, n_bytes, part_bytes)
    for span in spans:
        yield span, (n_bytes if span.end is None else span.end) - span.start


def scan_part(
    part: tuple[int, Sequence[Piece]], *, recipe: Recipe, folder: Path, block_bytes: int
) -> Scan:
    """Read the pieces of the part of this number, and write its segments into `folder`.

    It reads blocks of about `block_bytes`, and writes segments of as many characters and more.
    A file that is no text is a problem in words, and the others are read all the same.
    """
    number, pieces = part
    writer = SegmentWriter(folder, number, block_bytes, recipe.clean)
    hashes, problems = [], []
    for piece in pieces:
        try:
            hashes.append(_scan_piece(piece, recipe, writer))
        except DataError as error:
            problems.append(str(error))
    n_bytes = sum(piece.bytes for piece in pieces)
    return Scan(writer.finish(), n_bytes, hashes, writer.is_blank, writer.removed(), problems)


def _scan_piece(piece: Piece, recipe: Recipe, writer: "SegmentWriter") -> str:
    """Write the documents of a piece; return the SHA-256 as `Scan` has it."""
    path, span = piece.path, piece.span
    if is_hashed_by_spans(path, recipe):
        digest = hashlib.sha256()
        _write_text(piece, recipe, writer, digest.update)
        return digest.hexdigest()
    sha256 = "" if span.start else hash_file(path)
    if kind_of(path) == "records":
        texts = read_records(path, field=recipe.text_field, start=span.start, end=span.end)
        for record in map(normalise, texts):
            writer.begin(key_of(record))
            writer.add(record)
            writer.end()
    else:
        _write_text(piece, recipe, writer, lambda block: None)
    return sha256


def is_hashed_by_spans(path: Path, recipe: Recipe) -> bool:
    """Return whether the bytes of a file are hashed as they are read, which needs plain text."""
    return corpus.is_plain(path) and recipe.clean.encoding == "utf-8"


def _write_text(
    piece: Piece, recipe: Recipe, writer: "SegmentWriter", meet: Callable[[bytes], object]
) -> None:
    """Write the text in a piece, and give its bytes to `meet` as they come."""
    any_encoding = recipe.clean.encoding == "auto"
    check = plain.Checker(piece.path, piece.span.start, any_encoding).check
    head, in_head = "", piece.span.start == 0  # of a document whose key is not yet known
    for block in _read_blocks(piece, any_encoding, writer.block_size):
        meet(block)
        text = normalise_within(check(block))
        if in_head:
            head = head + text if head else text.lstrip(BYTE_ORDER_MARK)
            if len(head) < KEY_CHARACTERS:
                continue
            text, head, in_head = head, "", False
            writer.begin(key_of(text))
        writer.add(text)
    if head:
        writer.begin(key_of(head))
        writer.add(head)
    writer.end()


def _read_blocks(piece: Piece, any_encoding: bool, block_bytes: int) -> Iterator[bytes]:
    span = piece.span
    with open_utf8(piece.path, any_encoding=any_encoding) as file:
        if span.start:
            file.seek(span.start)
        size = None if span.end is None else span.end - span.start
        yield from blocks.read_blocks(file, piece.path, size=size, block_bytes=block_bytes)


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
    known = set(content[:LOOK])
    return known.union(content.translate(None, bytes(known)))


def read_segment(folder: Path, segment: Segment) -> str:
    """Return the text of a segment."""
    return Path(folder, segment.name).read_bytes().decode("utf-8")
