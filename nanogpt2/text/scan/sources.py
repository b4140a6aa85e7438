"""The files of a corpus: what was read of each, and whether it still is what was read."""

import hashlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.words import name_some
from nanogpt2.base.system.workers import Workers
from nanogpt2.config.yaml12 import printable
from nanogpt2.text.reading import corpus
from nanogpt2.text.reading.corpus import MOST_NAMED, Source
from nanogpt2.text.scan.blocks import Span
from nanogpt2.text.scan.parts import Piece, is_hashed_by_spans
from nanogpt2.text.scan.recipe import Recipe

BUFFER = 1 << 18  # bytes hashed at a time
LATELY = 2 * 10**9  # nanoseconds: the coarsest times of a file system, FAT's
WHOLE = Span(0, None)


def state_of(path: Path) -> list[int]:
    """Return what of a file differs once it was written: its number, size and times.

    Nothing where it is gone, or was written so lately that its times may not tell another change.
    """
    try:
        status = path.stat()
    except OSError:
        return []
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) < LATELY:
        return []
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


class Wholes:
    """The SHA-256 of files that are read in spans, by this process while workers read them too."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._digests: dict[Path, hashlib._Hash] = {}

    def add(self, pieces: Iterable[Piece]) -> None:
        """Read the next pieces of the corpus, where they are spans."""
        for piece in pieces:
            if piece.span != WHOLE and is_hashed_by_spans(piece.path, self.recipe):
                digest = self._digests.setdefault(piece.path, hashlib.sha256())
                _read_into(digest, piece.path, piece.span)

    def hashes(self) -> dict[Path, str]:
        """Return the SHA-256 of each of these files, once all pieces were added."""
        return {path: digest.hexdigest() for path, digest in self._digests.items()}


def check_sources(
    source: Path,
    recipe: Recipe,
    pieces: Iterable[Piece],
    read: Iterable[tuple[str, list[int]]],
    *,
    wholes: Mapping[Path, str],
    workers: Workers,
) -> list[Source]:
    """Return the files of the corpus `source`, of whose `pieces` that was `read` (see `Scan`).

    What was not written since is not read again, where `wholes` has the hash of a file in spans.
    DataError where files are no longer those that were read.
    """
    rows: dict[Path, list[tuple[Span, str, list[int]]]] = defaultdict(list)
    for piece, (sha256, state) in zip(pieces, read, strict=True):
        if piece.span.start == 0 or is_hashed_by_spans(piece.path, recipe):
            rows[piece.path].append((piece.span, sha256, state))
    changed = set(rows) ^ set(corpus.find_text_files(source))
    there = [path for path in rows if path not in changed]
    known = {path: found for path in there if (found := _known(path, rows[path], wholes))}
    # of a file in several spans each of them, and first the whole, by several workers
    again = [path for path in there if path not in known]
    spans = [(path, span) for path in again for span in _whole_and_parts(rows[path])]
    hashes = dict(zip(spans, workers.each(_hash, spans), strict=True))
    for path in again:
        known[path] = hashes[path, WHOLE]
        parts = [span for span, *_ in rows[path]] if len(rows[path]) > 1 else [WHOLE]
        if any(
            hashes[path, span][1] != sha256
            for span, (_, sha256, _) in zip(parts, rows[path], strict=True)
        ):
            changed.add(path)
    if changed:
        names = sorted(corpus.name_in(source, path) for path in changed)
        raise DataError(
            f"corpus: {printable(name_some(names, MOST_NAMED))} changed while {source} was read;"
            " give the same command again when nothing writes there"
        )
    return [Source(corpus.name_in(source, path), *known[path]) for path in there]


def _known(
    path: Path, rows: Sequence[tuple[Span, str, list[int]]], wholes: Mapping[Path, str]
) -> tuple[int, str] | None:
    """Return size and SHA-256 of a file that was not written since, if its hash is known."""
    now = state_of(path)
    if not now or any(state != now for _, _, state in rows):
        return None
    sha256 = rows[0][1] if len(rows) == 1 else wholes.get(path)
    return (now[1], sha256) if sha256 else None


def _whole_and_parts(rows: Sequence[tuple[Span, str, list[int]]]) -> Iterator[Span]:
    yield WHOLE
    if len(rows) > 1:
        yield from (span for span, *_ in rows)


def _hash(where: tuple[Path, Span]) -> tuple[int, str]:
    """Return size and SHA-256 of a span of a file."""
    digest = hashlib.sha256()
    size = _read_into(digest, *where)
    return size, digest.hexdigest()


def _read_into(digest: "hashlib._Hash", path: Path, span: Span) -> int:
    """Give `digest` a span of a file, which may be gone or shorter now; return its size."""
    size = 0
    buffer = memoryview(bytearray(BUFFER))
    with suppress(OSError), path.open("rb", buffering=0) as file:
        file.seek(span.start)
        left = BUFFER if span.end is None else span.end - span.start
        while count := file.readinto(buffer[: min(left, BUFFER)]):
            digest.update(buffer[:count])
            size += count
            left -= count if span.end else 0
    return size
