"""The first pass over a corpus: each part of it is read once, into segments."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nanogpt2.base.system.checksums import hash_file
from nanogpt2.base.system.errors import DataError
from nanogpt2.text.cleaning.cleaner import Tally
from nanogpt2.text.reading import plain
from nanogpt2.text.reading.records import kind_of, read_records
from nanogpt2.text.reading.streams import open_utf8
from nanogpt2.text.scan import blocks
from nanogpt2.text.scan.parts import Piece, is_hashed_by_spans
from nanogpt2.text.scan.recipe import Recipe
from nanogpt2.text.scan.segments import KEY_CHARACTERS, Segment, SegmentWriter, key_of
from nanogpt2.text.scan.sources import state_of
from nanogpt2.tokens.normal import BYTE_ORDER_MARK, normalise, normalise_within

LEAST_BLOCK_BYTES = KEY_CHARACTERS  # then the first span of a file has as many characters


@dataclass(frozen=True)
class Scan:
    """What a part of a corpus holds: its segments, and what was read, passed over and removed."""

    segments: list[Segment]
    read: list[tuple[str, list[int]]]  # of each piece its SHA-256, and its file's state before: of
    # its bytes where they are plain text, else of the whole file, with its first piece
    is_blank: bool  # whether all of it is white space
    removed: dict[str, Tally]  # by switch of `clean`
    problems: list[str] = field(default_factory=list)  # a line for each file that is no text


def scan_part(
    part: tuple[int, Sequence[Piece]], *, recipe: Recipe, folder: Path, block_bytes: int
) -> Scan:
    """Read the pieces of the part of this number, and write its segments into `folder`.

    It reads blocks of about `block_bytes`, and writes segments of as many characters and more.
    A file that is no text is a problem in words, and the others are read all the same.
    """
    number, pieces = part
    writer = SegmentWriter(folder, number, block_bytes, recipe.clean)
    read, problems = [], []
    for piece in pieces:
        state = state_of(piece.path)
        try:
            read.append((_scan_piece(piece, recipe, writer), state))
        except DataError as error:
            problems.append(str(error))
    return Scan(writer.finish(), read, writer.is_blank, writer.removed(), problems)


def _scan_piece(piece: Piece, recipe: Recipe, writer: SegmentWriter) -> str:
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


def _write_text(
    piece: Piece, recipe: Recipe, writer: SegmentWriter, meet: Callable[[bytes], object]
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
