"""Near copies in a corpus: where they stand, and how much of each split they are."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt2.base.system.workers import Workers
from nanogpt2.text.copies.constants import REACH
from nanogpt2.text.copies.index import Index, add_samples
from nanogpt2.text.copies.near import NearCopies, find_near_copies
from nanogpt2.text.copies.windows import Samples, sample, spacing_for
from nanogpt2.text.prepare.layout import SPLITS, Places, Positions
from nanogpt2.text.prepare.needs import with_progress
from nanogpt2.text.scan.segments import Segment, read_segment

STEP = 1024  # characters from one place that is known in the file of a segment to the next


def search(segments: Sequence[Segment], folder: Path, workers: Workers) -> NearCopies:
    """Return what of the text of `segments`, files in `folder`, is nearly that of an earlier place.

    Places are in characters of all segments, one after the other.
    """
    places = [0, *accumulate(segment.characters for segment in segments)]
    spacing = spacing_for(places[-1])
    with Index(folder / "index") as index:
        pairs = [(segment, segments[at + 1 : at + 3]) for at, segment in enumerate(segments)]
        samples = workers.each(partial(_sample, folder=folder, spacing=spacing), pairs)
        done = with_progress(
            "look for near copies", segments, samples, size=lambda segment: segment.bytes
        )
        for place, (_, found) in zip(places, done, strict=False):
            add_samples(index, found, start=place)
        reader = Reader(segments, places, folder)
        copies = list(find_near_copies(index, reader, spacing=spacing, each=workers.each))
    if not copies:
        return NearCopies(*[np.empty(0, np.int64)] * len(NearCopies._fields))
    return NearCopies(*(np.concatenate(column) for column in zip(*copies, strict=True)))


def _sample(pair: tuple[Segment, Sequence[Segment]], *, folder: Path, spacing: int) -> Samples:
    segment, following = pair
    text = read_segment(folder, segment)
    return sample(text, read_beginning(folder, following), spacing=spacing)


def read_beginning(folder: Path, segments: Sequence[Segment], size: int = REACH) -> str:
    """Return the first `size` characters of segments that follow each other, or all they have."""
    text = ""
    for segment in segments:
        with Path(folder, segment.name).open("rb") as file:
            text += file.read(4 * size).decode("utf-8", "ignore")
        if len(text) >= size:
            break
    return text[:size]


class Reader:
    """Reads characters of a corpus by their places, from the segments on disk."""

    def __init__(self, segments: Sequence[Segment], places: Sequence[int], folder: Path) -> None:
        self.places = places
        self._files = [(str(folder / each.name), each.characters, each.bytes) for each in segments]

    def __call__(self, start: int, end: int) -> str:
        first = bisect_right(self.places, start) - 1
        text = ""
        for place, file in zip(self.places[first:], self._files[first:], strict=False):
            if place >= end:
                break
            text += _read(file, max(0, start - place), min(end - place, file[1]))
        return text


def _read(file: tuple[str, int, int], start: int, end: int) -> str:
    """Return the characters start .. end - 1 of a segment: its path, characters and bytes."""
    path, characters, size = file
    if size == characters:  # a byte each
        first, begin, stop = start, start, end
    else:
        offsets, first = _find_offsets(path, size), start // STEP
        begin, stop, first = int(offsets[first]), int(offsets[-(-end // STEP)]), first * STEP
    with open(path, "rb", buffering=0) as opened:  # noqa: PTH123  # quicker, and often
        opened.seek(begin)
        return opened.read(stop - begin).decode("utf-8")[start - first : end - first]


@lru_cache(1 << 9)
def _find_offsets(path: str, size: int) -> Positions:
    """Return where every so many characters of a segment begin, in bytes, and where it ends."""
    starts = np.flatnonzero((np.fromfile(path, np.uint8) & 0xC0) != 0x80)[::STEP]
    return np.append(starts, size)


def pieces_of(starts: Positions, ends: Positions) -> Positions:
    """Return what the stretches start .. end - 1 cover, as sorted pieces (N, 2) that are apart."""
    order = np.argsort(starts, kind="stable")
    starts, reached = starts[order], np.maximum.accumulate(ends[order])
    heads = np.flatnonzero(np.append(True, starts[1:] > reached[:-1])[: len(starts)])
    lasts = np.append(heads[1:], len(starts))[: len(heads)] - 1
    return np.stack([starts[heads], reached[lasts]], axis=1)


def describe_copies(copies: NearCopies, places: Places) -> dict[str, Any]:
    """Return of each split how many characters are near copies, and how many are unique.

    `in_train` are those that stand nearly so in the training split too: of held-out text before or
    after, of train itself earlier. `copied` are those that stand anywhere earlier, `unique` the
    rest.
    """
    of_train = places.split_at(copies.starts) == 0
    from_train = places.split_at(copies.source_starts) == 0
    learnt = of_train & ~from_train  # held-out text is the source, and trained on as a copy
    starts = np.concatenate([copies.starts[from_train], copies.source_starts[learnt]])
    ends = np.concatenate([copies.ends[from_train], copies.source_ends[learnt]])
    counts = zip(
        SPLITS,
        places.count(np.array([[0, places.size]])),
        places.count(pieces_of(copies.starts, copies.ends)),
        places.count(pieces_of(starts, ends)),
        strict=False,
    )
    return {
        name: {"in_train": in_train, "copied": copied, "unique": size - copied}
        for name, size, copied, in_train in counts
        if size
    }
