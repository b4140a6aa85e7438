"""The files of a corpus: what was read of each, and whether it still is what was read."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
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
WHOLE = Span(0, None)


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
    read: dict[Path, list[tuple[Span, str]]] = defaultdict(list)
    for piece, found in zip(pieces, sha256, strict=True):
        if piece.span.start == 0 or is_hashed_by_spans(piece.path, recipe):
            read[piece.path].append((piece.span, found))
    changed = set(read) ^ set(corpus.find_text_files(source))
    there = [path for path in read if path not in changed]
    # of a file in several spans each of them, and first the whole, by several workers
    spans = [(path, span) for path in there for span in _whole_and_parts(read[path])]
    hashes = dict(zip(spans, workers.each(_hash, spans), strict=True))
    sources = []
    for path in there:
        size, whole = hashes[path, WHOLE]
        parts = [span for span, _ in read[path]] if len(read[path]) > 1 else [WHOLE]
        if any(
            hashes[path, span][1] != found
            for span, (_, found) in zip(parts, read[path], strict=True)
        ):
            changed.add(path)
        sources.append(Source(corpus.name_in(source, path), size, whole))
    if changed:
        names = sorted(corpus.name_in(source, path) for path in changed)
        raise DataError(
            f"corpus: {printable(name_some(names, MOST_NAMED))} changed while {source} was read;"
            " give the same command again when nothing writes there"
        )
    return sources


def _whole_and_parts(read: Sequence[tuple[Span, str]]) -> Iterator[Span]:
    yield WHOLE
    if len(read) > 1:
        yield from (span for span, _ in read)


def _hash(where: tuple[Path, Span]) -> tuple[int, str]:
    """Return size and SHA-256 of a span of a file, which may be gone or shorter now."""
    path, span = where
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            file.seek(span.start)
            left = None if span.end is None else span.end - span.start
            while content := file.read(BUFFER if left is None else min(BUFFER, left)):
                left = None if left is None else left - len(content)
                size += len(content)
                digest.update(content)
    except OSError:
        return 0, ""
    return size, digest.hexdigest()
