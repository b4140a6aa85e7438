"""Figures of a text that tell how hard it is to predict, and how much more of it would help.

Losses of n-gram models of characters on held-out text, in nats a character: shorter contexts are
mixed in as Witten & Bell 1991 do ("The zero-frequency problem").
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.uint64]

ORDERS = 6  # characters of context at most
READ = 1 << 22  # characters of the training text that are counted, in pieces from all over it
FEWER = 4  # a second count is of every fourth piece alone
PIECE = 1 << 13  # characters
JUDGED = 50_000  # characters of held-out text
MIXING = np.uint64(0x9E3779B97F4A7C15)  # odd, so that products keep all bits: a hash of contexts


def read_figures(train: str, val: str) -> dict[str, float]:
    """Return the losses of n-gram models of `train` on `val`, and counts.

    order_0 to order_6 are the losses with so many characters of context, fewer_0 to fewer_6 those
    where a quarter as much was counted. `characters` is of the whole training text.
    """
    counted = pieces(train, max(-(-len(train) // READ), 1))
    codes, held_out = as_codes(counted), as_codes(pieces(val, max(len(val) // JUDGED, 1)))
    quarter = as_codes(pieces(counted, FEWER))
    figures = {
        f"{name}_{order}": round(loss, 5)
        for name, read in (("order", codes), ("fewer", quarter))
        for order, loss in enumerate(ngram_losses(read, held_out))
    }
    kinds = len(np.unique(np.concatenate([codes, held_out])))
    return {**figures, "kinds": kinds, "counted": len(codes), "characters": len(train)}


def pieces(text: str, every: int) -> str:
    """Return one of `every` pieces of `text`, from all over it."""
    starts = range(0, len(text), PIECE * every)
    return "".join(text[start : start + PIECE] for start in starts)


def as_codes(text: str) -> Numbers:
    """Return the code points of `text`, (n,)."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)


def ngram_losses(train: Numbers, val: Numbers) -> Iterator[float]:
    """Yield the mean loss on `val` of models of `train`, with 0, 1, 2 and more of context."""
    kinds = len(np.unique(np.concatenate([train, val])))
    counts = Counts(train)
    likely = (counts.of(val) + 1.0) / (len(train) + kinds)
    yield loss_of(likely)
    contexts = [np.zeros_like(codes) for codes in (train, val)]
    for order in range(1, ORDERS + 1):
        contexts = [
            extend(context, codes, order)
            for context, codes in zip(contexts, (train, val), strict=True)
        ]
        (read, asked) = contexts
        whole = [mix(context, codes) for context, codes in zip(contexts, (train, val), strict=True)]
        followed = Counts(read)
        pairs, first = np.unique(whole[0], return_index=True)
        different = Counts(read[first])  # how many different characters follow a context
        seen = Counts(whole[0]).of(whole[1])
        total, novel = followed.of(asked), different.of(asked)
        likely = np.where(total > 0, (seen + novel * likely) / np.maximum(total + novel, 1), likely)
        del pairs
        yield loss_of(likely)


def extend(contexts: Numbers, codes: Numbers, order: int) -> Numbers:
    """Return hashes of the `order` characters before each, from those of one fewer."""
    before = np.zeros_like(codes)
    before[order:] = codes[:-order]
    return mix(contexts, before)


def mix(hashes: Numbers, codes: Numbers) -> Numbers:
    """Return hashes of what `hashes` are of, and `codes` after it."""
    mixed = (hashes ^ (codes + MIXING)) * MIXING
    return mixed ^ (mixed >> np.uint64(29))


class Counts:
    """How often each number occurs."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers, self.counts = np.unique(numbers, return_counts=True)

    def of(self, numbers: Numbers) -> npt.NDArray[np.float64]:
        """Return how often each of `numbers` occurred."""
        at = np.searchsorted(self.numbers, numbers).clip(max=len(self.numbers) - 1)
        return np.where(self.numbers[at] == numbers, self.counts[at], 0).astype(np.float64)


def loss_of(likely: npt.NDArray[np.float64]) -> float:
    """Return the mean loss in nats."""
    return float(-np.log(likely).mean())
