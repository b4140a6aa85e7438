"""How much of held-out text stands word for word in training text, of any size, piece by piece.

First the windows of the held-out pieces are gathered, then the training pieces are looked up among
them. Pieces come in any order and from any process, and the result is that of the whole texts.
"""

from collections.abc import Iterable, Mapping
from ctypes import byref
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanogpt2.text.copies.constants import MASK
from nanogpt2.text.copies.library import Sought, find_library
from nanogpt2.text.copies.windows import Hashes, Positions, low_hashes

Counts = npt.NDArray[np.uint32]

LENGTH = 100  # characters of a window: more than what people write alike by chance
LIMIT = 1 << 20  # different windows that are kept of a split
OTHER = np.uint64(0x9E3779B97F4A7C15)
TOGETHER = 2  # times as many wait before they are sorted
FALSE_BITS = 3  # more bits: of the hashes that are none of ours 1 in 8 passes one look


@dataclass(frozen=True)
class HeldOut:
    """Different windows of held-out text by their hashes, in order, and how often each occurs.

    At level 0 all of them, at level n the one in 2^n whose hash is below 2^(64 - n).
    """

    level: int
    hashes: Hashes
    counts: Counts

    def at(self, level: int) -> "HeldOut":
        """Return what is left at a higher level."""
        end = np.searchsorted(self.hashes, np.uint64(MASK >> level), side="right")
        return HeldOut(level, self.hashes[:end], self.counts[:end])


def level_for(n_characters: int, *, limit: int = LIMIT) -> int:
    """Return the level at which held-out text of so many characters has some 2 `limit` windows.

    0 where it has no more; all pieces of a text are gathered from the same level on.
    """
    return max(0, (n_characters - 1) // (2 * limit)).bit_length()


def gather(text: str, following: str = "", *, level: int = 0, limit: int = LIMIT) -> HeldOut:
    """Return the windows of 100 characters that begin in `text`, which `following` goes on from.

    99 characters of `following` are enough. They are those of `level` or, where more than `limit`
    are different, of the lowest level above it that leaves at most so many.
    """
    found, waiting = HeldOut(level, *_count(np.empty(0, dtype=np.uint64))), []
    for hashes in low_hashes(text, following, LENGTH, MASK >> level):
        waiting.append(hashes[hashes <= np.uint64(MASK >> found.level)])
        if sum(map(len, waiting)) > TOGETHER * limit:
            new = HeldOut(found.level, *_count(np.concatenate(waiting)))
            found, waiting = _add([found, new], limit), []
    new = HeldOut(found.level, *_count(np.concatenate([found.hashes[:0], *waiting])))
    return _add([found, new], limit)


def combine(parts: Iterable[HeldOut], *, limit: int = LIMIT) -> HeldOut:
    """Return the windows of several pieces together, the same in any order."""
    waiting = [HeldOut(0, *_count(np.empty(0, dtype=np.uint64)))]
    for part in parts:
        waiting.append(part)
        if sum(len(each.hashes) for each in waiting) > TOGETHER * limit:
            waiting = [_add(waiting, limit)]
    return _add(waiting, limit)


def _add(parts: list[HeldOut], limit: int) -> HeldOut:
    level = max(part.level for part in parts)
    parts = [part.at(level) for part in parts if len(part.hashes)] or parts[:1]
    both = parts[0]
    if len(parts) > 1:
        hashes = np.concatenate([part.hashes for part in parts])
        counts = np.concatenate([part.counts for part in parts])
        both = HeldOut(level, *_count(hashes, counts))
    if len(both.hashes) <= limit:
        return both
    while len(both.hashes) > limit:
        both = both.at(both.level + 1)
    return HeldOut(both.level, both.hashes.copy(), both.counts.copy())  # without the rest


def _count(hashes: Hashes, counts: Counts | None = None) -> tuple[Hashes, Counts]:
    """Return each hash once, in order, and the sum of its counts (1 where there are none)."""
    if counts is None:
        hashes = np.sort(hashes)
    else:
        order = np.argsort(hashes, kind="stable")  # quick where they are in order by parts
        hashes, counts = hashes[order], counts[order]
    heads = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)])
    ends = np.append(heads[1:], len(hashes))[: len(heads)]
    if counts is None:
        return hashes[heads], (ends - heads).astype(np.uint32)
    totals = np.append(0, np.cumsum(counts, dtype=np.int64))
    return hashes[heads], (totals[ends] - totals[heads]).astype(np.uint32)


@dataclass(frozen=True)
class Windows:
    """The windows of all held-out splits together, by number, as texts are looked up among them."""

    level: int
    hashes: Hashes
    buckets: npt.NDArray[np.uint32]  # where hashes with the same first bits begin, 2^b + 1
    # by the first and by other bits of a hash whether there is one: most windows are none of ours
    first: npt.NDArray[np.uint8]
    second: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, splits: Mapping[str, HeldOut]) -> "Windows":
        """Return the windows of some splits."""
        none = np.empty(0, dtype=np.uint64)
        hashes, _ = _count(np.concatenate([none, *(each.hashes for each in splits.values())]))
        level = min((held_out.level for held_out in splits.values()), default=0)
        bits = max(10, len(hashes).bit_length() - 2)  # some 4 hashes in a bucket
        shifted = hashes << np.uint64(level)
        starts = np.arange((1 << bits) + 1, dtype=np.uint64)
        buckets = np.searchsorted(shifted >> np.uint64(64 - bits), starts).astype(np.uint32)
        looks = [_make_looks(each, bits + 2 + FALSE_BITS) for each in (shifted, shifted * OTHER)]
        return cls(level, hashes, buckets, *looks)

    @property
    def size(self) -> int:
        """Number of different windows."""
        return len(self.hashes)

    def look_up(self, text: str, following: str = "") -> Positions:
        """Return the numbers of the held-out windows that begin in a piece of training text too.

        99 characters of `following`, which comes after `text`, are enough.
        """
        met = np.zeros(self.size, dtype=np.bool_)
        if not self.size:
            return np.flatnonzero(met)
        library, sought = find_library(len(text)), self._sought()
        for hashes in low_hashes(text, following, LENGTH, MASK >> self.level):
            if library is None:
                met[self._find(hashes << np.uint64(self.level))] = True
            else:
                library.mark_found(hashes.ctypes.data, len(hashes), byref(sought), met.ctypes.data)
        return np.flatnonzero(met)

    def _sought(self) -> Sought:
        arrays = self.hashes, self.buckets, self.first, self.second
        numbers = self.level, int(OTHER), self._shift, self._shift_of_looks
        return Sought(*(array.ctypes.data for array in arrays), *numbers)

    @property
    def _shift(self) -> int:
        return 65 - len(self.buckets).bit_length()

    @property
    def _shift_of_looks(self) -> int:
        return 62 - len(self.first).bit_length()

    def _find(self, shifted: Hashes) -> Positions:
        """Return the numbers of those hashes, shifted by the level, that are held-out windows."""
        for looks, other in ((self.first, np.uint64(1)), (self.second, OTHER)):
            at = shifted * other >> np.uint64(self._shift_of_looks)
            is_set = looks[at >> np.uint64(3)] >> (at & np.uint64(7)).astype(np.uint8) & 1
            shifted = shifted.take(np.flatnonzero(is_set))
        buckets = (shifted >> np.uint64(self._shift)).view(np.int64)
        at, ends = self.buckets[buckets].astype(np.int64), self.buckets[buckets + 1]
        hashes, found = shifted >> np.uint64(self.level), [np.empty(0, dtype=np.int64)]
        while len(left := np.flatnonzero(at < ends)):
            at, ends, hashes = at[left], ends[left], hashes[left]
            found.append(at[self.hashes[at] == hashes])
            at = at + 1
        return np.concatenate(found)

    def share(self, held_out: HeldOut, met: npt.NDArray[np.bool_]) -> float:
        """Return the share (0 .. 1) of a split's windows that were `met`, by number; 0 of none."""
        found = met[np.searchsorted(self.hashes, held_out.hashes)]
        return int(held_out.counts[found].sum()) / max(1, int(held_out.counts.sum()))


def _make_looks(hashes: Hashes, bits: int) -> npt.NDArray[np.uint8]:
    looks = np.zeros(1 << bits, dtype=np.bool_)
    looks[hashes >> np.uint64(64 - bits)] = True
    return np.packbits(looks, bitorder="little")
