"""Repeated lines: those of a corpus of any size that stand in it earlier, found by an index."""

from collections.abc import Iterator

import numpy as np

from nanogpt2.cleaning.lines import LEAST_LINE, line_keys
from nanogpt2.copies.index import LENGTH_BITS, Index
from nanogpt2.copies.windows import Positions

MOST = (1 << LENGTH_BITS) - 1  # characters of a line that an index holds; longer ones are left


def add_lines(index: Index, text: str, *, start: int, least: int = LEAST_LINE) -> None:
    """Add the lines of `least` and more characters of a text that begins at `start` of all text.

    A line that is cut between two texts is two lines.
    """
    keys = line_keys(text, least)
    short = keys.lengths < MOST
    starts = keys.starts[short] + start
    index.add(keys.hashes[short], starts, starts + keys.lengths[short])


def find_repeated_lines(index: Index) -> Iterator[Positions]:
    """Yield lines that are not the first of their kind, in order: pieces (N, 2), as added."""
    for repeats in index.repeats():
        _, starts, ends = index.places(repeats.items)
        yield np.stack([starts, ends], axis=1)
