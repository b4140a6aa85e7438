"""Documents: where they begin in the tokens of a text, and windows that begin where they do."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanogpt2.tokens.bpe.arrays import TokenArray

Positions = npt.NDArray[np.int64]

PIECE = 2**24  # tokens searched at a time


@dataclass(frozen=True)
class Layout:
    """Windows that cover a text: where they and its documents begin."""

    windows: Positions
    documents: Positions
    read_twice: float  # tokens that two windows have, as a share of all

    def __str__(self) -> str:
        share = np.isin(self.windows, self.documents).mean()
        return (
            f"documents: {len(self.documents):,} in {len(self.windows):,} windows, {share:.1%} of"
            f" which begin with one; {self.read_twice:.1%} of the tokens are read twice an epoch"
        )


def lay_out(tokens: TokenArray, separator: Sequence[int], block_size: int) -> Layout:
    """Return windows of `block_size` that begin with a document, or go on with a long one.

    A document that a window would cut off begins the next window, and so does what follows a
    window in a document longer than that. So each document that fits stands whole in a window; its
    tokens before the cut are read twice.
    """
    starts = find_documents(tokens, separator)
    lengths = np.diff(starts, append=len(tokens))
    counts = -(-lengths // block_size)  # windows that begin in a document, if its first one does
    ends = starts + counts * block_size
    following = np.searchsorted(starts, ends, side="right") - 1  # the last that begins before
    chosen, steps = [0], following.tolist()
    within = (ends < len(tokens)).tolist()
    while within[chosen[-1]]:
        chosen.append(steps[chosen[-1]])
    repeats = counts[chosen]
    numbers = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    windows = np.repeat(starts[chosen], repeats) + numbers * block_size
    return Layout(windows, starts, len(windows) * block_size / len(tokens) - 1)


def find_documents(tokens: TokenArray, separator: Sequence[int]) -> Positions:
    """Return where documents begin: at the first token, and after each `separator` but a last."""
    size, found = len(separator), [np.zeros(1, np.int64)]
    for begin in range(0, len(tokens), PIECE):
        piece = tokens[begin : begin + PIECE + size - 1]
        hits = np.flatnonzero(piece[: len(piece) - size + 1] == separator[0])
        for place, token in enumerate(separator[1:], start=1):
            hits = hits[piece[hits + place] == token]
        found.append(begin + hits + size)
    starts = np.concatenate(found)
    return starts[starts < len(tokens)]
