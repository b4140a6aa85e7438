"""Lines that stand in a corpus earlier, document by document."""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from nanogpt2.base.system.workers import Workers
from nanogpt2.text.cleaning.lines import line_keys
from nanogpt2.text.copies.index import LENGTH_BITS, Index, add_samples
from nanogpt2.text.copies.windows import Samples
from nanogpt2.text.prepare.layout import Positions
from nanogpt2.text.prepare.needs import with_progress
from nanogpt2.text.scan.segments import Segment, read_segment

MOST = (1 << LENGTH_BITS) - 1  # characters of a line that an index holds; longer ones are left


def search_lines(segments: Sequence[Segment], folder: Path, workers: Workers) -> Positions:
    """Return the lines that are not the first of their kind, with newlines, in pieces (N, 2).

    Places are in characters of all segments, one after the other.
    """
    places = [0, *accumulate(segment.characters for segment in segments)]
    with Index(folder / "lines") as index:
        found = workers.each(partial(find_lines, folder=folder), segments)
        done = with_progress(
            "look for repeated lines", segments, found, size=lambda segment: segment.bytes
        )
        for place, (_, lines) in zip(places, done, strict=False):
            add_samples(index, lines, start=place)
        repeats, stand = index.repeats(workers.each), index.places()
        return np.concatenate([np.stack(stand.of(found.items), axis=1) for found in repeats])


def find_lines(segment: Segment, *, folder: Path) -> Samples:
    """Return the lines of a segment that are long enough, with their newlines."""
    text = read_segment(folder, segment)
    places = np.unique([0, *segment.starts.tolist(), len(text)])
    # with a newline between documents no line is of two
    keys = line_keys("\n".join(text[start:end] for start, end in pairwise(places.tolist())))
    between = places[1:] + np.arange(len(places) - 1)  # where those newlines are
    before = np.searchsorted(between, keys.starts, side="right")
    ends = keys.starts + keys.lengths
    own = (ends != between[np.minimum(before, len(between) - 1)]).astype(np.int64)
    kept = keys.lengths + own <= MOST
    starts = (keys.starts - before)[kept]
    return Samples(keys.hashes[kept], starts, starts + (keys.lengths + own)[kept])
