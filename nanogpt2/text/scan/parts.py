"""Parts of a corpus: what a worker reads at a time, of many small files or of one large one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanogpt2.text.reading import corpus
from nanogpt2.text.reading.records import count_row_groups, is_table, kind_of
from nanogpt2.text.reading.streams import packing
from nanogpt2.text.scan import blocks
from nanogpt2.text.scan.blocks import Span
from nanogpt2.text.scan.recipe import Recipe

BLOCKS_OF_PART = 4  # that one worker reads at a time


@dataclass(frozen=True)
class Piece:
    """What a worker reads of a source: all of it, or a span, and about how many bytes it has.

    A span is of bytes; of a table it is of row groups.
    """

    path: Path
    span: Span
    bytes: int


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


def is_hashed_by_spans(path: Path, recipe: Recipe) -> bool:
    """Return whether the bytes of a file are hashed as they are read, which needs plain text."""
    return corpus.is_plain(path) and recipe.clean.encoding == "utf-8"
