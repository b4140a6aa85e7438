"""Lines of a corpus: how long they are, and which stand in it again, in bounded memory.

Of lines that may recur a table holds the hash, count, first and last place. When it is full, lines
seen rarely make room (as in Manku & Motwani 2002) but for a sample by hash (as in Gibbons 2001),
which stands for them in the shares of a corpus of any size.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanogpt2.text.cleaning.lines import LEAST_LINE, line_keys
from nanogpt2.text.prepare.layout import SPLITS
from nanogpt2.text.survey.splits import Numbers, Splits

LONG = 10_000  # characters: no line of writing, but a file without line ends
CAPACITY = 1 << 20  # lines in the table
BATCH = 1 << 19  # lines that are sorted into it together
BUCKETS = 1 << 16  # lengths counted one by one; longer ones together
SHOWN = 20


@dataclass(frozen=True)
class Repeated:
    """A line that stands in the corpus more than once: its places are characters of the corpus."""

    count: int
    length: int  # characters
    first: int
    last: int


@dataclass(frozen=True)
class Repetition:
    """What lines of at least 40 characters repeat: the first of equal ones does not count."""

    lines: int
    characters: int
    across: dict[str, int]  # lines of a held-out split that stand in training text, by split
    commonest: list[Repeated]
    is_estimate: bool


class Lengths:
    """How many lines have each length, and the longest of them."""

    def __init__(self) -> None:
        self.counts = np.zeros(BUCKETS, dtype=np.int64)
        self.longest: list[tuple[int, int]] = []  # length, first character in the corpus
        self.long = 0
        self._begun = 0  # the first character of a line whose end is not known yet

    def add(self, text: str, start: int) -> None:
        """Count the lines that end in `text`, whose first character is `start` of the corpus."""
        ends = _newlines(text) + start
        if len(ends):
            self._count(np.append(self._begun, ends[:-1] + 1), ends)
            self._begun = int(ends[-1]) + 1

    def _count(self, starts: Numbers, ends: Numbers) -> None:
        lengths = ends - starts
        self.counts += np.bincount(np.minimum(lengths, BUCKETS - 1), minlength=BUCKETS)
        long = np.flatnonzero(lengths >= LONG)
        if len(long):
            self.long += len(long)
            found = zip(lengths[long].tolist(), starts[long].tolist(), strict=True)
            best = sorted([*self.longest, *found], key=lambda pair: (-pair[0], pair[1]))
            self.longest = best[:SHOWN]

    @property
    def total(self) -> int:
        """Number of lines."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> int:
        """Return the length that `share` (0 .. 1) of the lines do not exceed."""
        if not self.total:
            return 0
        return int(np.searchsorted(np.cumsum(self.counts), share * self.total))


def _newlines(text: str) -> Numbers:
    if text.isascii():
        return np.flatnonzero(np.frombuffer(text.encode("ascii"), dtype=np.uint8) == 10)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return np.flatnonzero(points == 10)


class LineTable:
    """How often each line of at least 40 characters stands in a corpus."""

    def __init__(self, capacity: int = CAPACITY, batch: int = BATCH) -> None:
        self.capacity, self.batch = capacity, batch
        self.level = 0  # lines whose hash has so many zeros in front are always kept
        self.often = 1  # others are kept from so many times on
        self._table = np.empty((4, 0), dtype=np.int64)  # count, length, first, last
        self._hashes = np.empty(0, dtype=np.uint64)
        self._waiting: list[tuple[npt.NDArray[np.uint64], Numbers, Numbers]] = []
        self._n_waiting = 0

    def add(self, text: str, start: int) -> None:
        """Count the lines of `text`, which begins at the character `start` of the corpus."""
        keys = line_keys(text, LEAST_LINE)
        self._waiting.append((keys.hashes, keys.lengths, keys.starts + start))
        self._n_waiting += len(keys.hashes)
        if self._n_waiting >= self.batch:
            self._merge()

    def _merge(self) -> None:
        if not self._waiting:
            return
        new, lengths, starts = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._n_waiting = [], 0
        hashes = np.concatenate([self._hashes, new])
        rows = np.stack([np.ones_like(starts), lengths, starts, starts])
        rows = np.concatenate([self._table, rows], axis=1)
        order = np.argsort(hashes, kind="stable")
        hashes, rows = hashes[order], rows[:, order]
        begins = np.flatnonzero(np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)])
        ends = np.append(begins[1:], len(hashes)) - 1
        self._hashes = hashes[begins]
        self._table = (
            np.stack(
                [np.add.reduceat(rows[0], begins), rows[1, begins], rows[2, begins], rows[3, ends]]
            )
            if len(begins)
            else rows
        )
        self._make_room()

    def _make_room(self) -> None:
        """Drop lines outside the sample, those seen least often first, until half is free."""
        least = 1
        while len(self._hashes) > self.capacity:
            self.level += 1
            least += 1
            self.often = max(self.often, least)
            kept = self._is_sampled() | (self._table[0] >= least)
            self._hashes, self._table = self._hashes[kept], self._table[:, kept]

    def _is_sampled(self) -> npt.NDArray[np.bool_]:
        return self._hashes >> np.uint64(64 - self.level) == 0 if self.level else self._hashes >= 0

    def summarise(self, splits: Splits) -> Repetition:
        """Return what is repeated, and how much of that in another split than train."""
        self._merge()
        count, length, first, last = self._table
        commonest = np.flatnonzero(count > 1)
        order = np.lexsort([first[commonest], -(count * length)[commonest]])[:SHOWN]
        rows = self._table[:, commonest[order]].T.tolist()
        often = count > 2 * self.often if self.level else count > 0
        weights = np.where(often, 1, np.where(self._is_sampled(), 2**self.level, 0))
        ends = np.sort([splits.of(first), splits.of(last)], axis=0)
        shared = weights * ((count > 1) & (ends[0] == 0))
        held_out = np.bincount(ends[1], weights=shared, minlength=len(SPLITS)).astype(np.int64)
        return Repetition(
            lines=int(((count - 1) * weights).sum()),
            characters=int(((count - 1) * length * weights).sum()),
            across=dict(zip(SPLITS[1:], held_out[1:].tolist(), strict=True)),
            commonest=[Repeated(*row) for row in rows],
            is_estimate=self.level > 0,
        )
