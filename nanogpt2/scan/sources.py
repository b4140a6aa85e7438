"""The files of a corpus: what was read of each, and whether it still is what was read."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from nanogpt2.base.errors import DataError
from nanogpt2.base.words import name_some
from nanogpt2.base.workers import Workers
from nanogpt2.config.yaml12 import printable
from nanogpt2.scan.blocks import Span
from nanogpt2.scan.parts import Piece, is_hashed_by_spans
from nanogpt2.scan.recipe import Recipe
from nanogpt2.text import corpus
from nanogpt2.text.corpus import MOST_NAMED, Source

BUFFER = 1 << 20  # bytes hashed at a time

Hashes = tuple[int, str, list[str]]  # of a file: its size, its SHA-256, and that of each span


def check_sources(
    source: Path,
    recipe: Recipe,
    pieces: Iterable[Piece],
    sha256: Iterable[str],
    *,
    workers: Workers,
) -> list[Source]:
    """Return the files of the corpus `source`, whose `pieces` had the hashes `sha256` when read.

    DataError where they are no longer those that were read.
    """
    spans, read = defaultdict(list), defaultdict(list)
    for piece, found in zip(pieces, sha256, strict=True):
        if piece.span.start == 0 or is_hashed_by_spans(piece.path, recipe):
            spans[piece.path].append(piece.span)
            read[piece.path].append(found)
    changed = set(spans) ^ set(corpus.find_text_files(source))
    there = [path for path in spans if path not in changed]
    hashes = workers.each(_hash, [(path, spans[path]) for path in there])
    sources = []
    for path, (size, whole, parts) in zip(there, hashes, strict=True):
        if parts != read[path]:
            changed.add(path)
        sources.append(Source(corpus.name_in(source, path), size, whole))
    if changed:
        names = sorted(corpus.name_in(source, path) for path in changed)
        raise DataError(
            f"corpus: {printable(name_some(names, MOST_NAMED))} changed while {source} was read;"
            " give the same command again when nothing writes there"
        )
    return sources


def _hash(file_and_spans: tuple[Path, Sequence[Span]]) -> Hashes:
    """Return the hashes of a file that may be gone or shorter now."""
    path, spans = file_and_spans
    if len(spans) == 1:
        spans = [Span(0, None)]
    whole, parts, size = hashlib.sha256(), [], 0
    try:
        with path.open("rb") as file:
            for span in spans:
                part = whole if len(spans) == 1 else hashlib.sha256()
                left = None if span.end is None else span.end - span.start
                while content := file.read(BUFFER if left is None else min(BUFFER, left)):
                    left = None if left is None else left - len(content)
                    size += len(content)
                    part.update(content)
                    if whole is not part:
                        whole.update(content)
                parts.append(part.hexdigest())
    except OSError:
        return 0, "", []
    return size, whole.hexdigest(), parts
