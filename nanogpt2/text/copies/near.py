"""Near copies: stretches of a text that stand nearly so in an earlier place too.

A sample of windows, chosen by their content, is looked up in an index of what came before. What
repeats along one line (this far in the copy, that far in the source) makes a stretch, as seeds make
alignments (Pearson & Lipman 1988). How alike two stretches are is the share of the character
5-grams, white space left out, that both have of all (Jaccard 1912): read from the texts where the
sample does not decide. Passages of 300 characters and more are found surely, of 200 mostly, of less
than 150 seldom; with the spacing for much text of 500 and more (benchmarks/README.md).
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nanogpt2.text.copies.constants import GRAM, WINDOW
from nanogpt2.text.copies.index import Each, Index, Places, Repeats
from nanogpt2.text.copies.library import find_library
from nanogpt2.text.copies.similarity import similarity
from nanogpt2.text.copies.windows import SPACING, Positions

ALIKE = 0.7  # Jaccard similarity from which a stretch is a near copy
GAP = 16  # windows of the sample from one match to the next
DRIFT = 8  # how many more of them one side may have in a gap
LEAST = 3  # matches that make a stretch
SEGMENT = 4096  # characters, white space left out, that are judged together
HELD_BACK = 1024  # the last windows of a block are looked at again with the next
SHORTEST = 100  # characters: less is a phrase
HOPELESS = 0.5  # similarity that is left out even where the sample may err
COVERED = 0.9  # a doubtful stretch is left out where a sure one has so much of it

Range = tuple[int, int]  # start, end
Read = Callable[[int, int], str]  # of a range the text
Flags = npt.NDArray[np.bool_]
Reals = npt.NDArray[np.float64]


class NearCopies(NamedTuple):
    """Stretches start .. end - 1 that are nearly those at their sources: columns.

    One stretch can have two sources, and a copy of more than about 4 million characters comes in
    pieces. They come nearly in order.
    """

    starts: Positions
    ends: Positions
    source_starts: Positions
    source_ends: Positions

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self) -> list[tuple[int, ...]]:
        """Return the stretches one by one, in the order of the columns."""
        return list(zip(*(column.tolist() for column in self), strict=True))


class _Matches(NamedTuple):
    """Items of the copy in order, each with an earlier one of the same hash."""

    items: Positions
    sources: Positions


class _Segments(NamedTuple):
    """Pieces of chains, chain by chain: first and last item on both sides, and how many match."""

    chains: Positions
    first: Positions
    last: Positions
    source_first: Positions
    source_last: Positions
    matches: Positions
    breaks: Positions  # places where windows are missing between matches

    def pick(self, which: Positions | Flags) -> "_Segments":
        return _Segments(*[column[which] for column in self])

    def similarity(self, spacing: int) -> tuple[Reals, Reals]:
        """Return the Jaccard similarity of the 5-grams as the sample tells it, and its spread.

        A change of c characters spoils c + 15 windows and c + 4 of the 5-grams, so that the share
        of windows that are lost is 11 characters a change too high. Of the changes of a single
        character 1 - 1 / e spoil a window of the sample.
        """
        spans = (self.last - self.first + self.source_last - self.source_first) / 2 + 1
        changes = self.breaks / (1 - np.exp(-WINDOW / spacing))
        lost = (spans - self.matches) - changes * (WINDOW - GRAM) / spacing
        kept = np.clip(1 - lost / spans, 0, 1)
        spread = np.where((spans == self.matches) & (spans >= 8), 0.0, 100 / spans**1.5)
        return kept / (2 - kept), spread


def find_near_copies(
    index: Index, read: Read | None = None, *, spacing: int = SPACING, each: Each = map
) -> Iterator[NearCopies]:
    """Yield what in `index`, samples of that spacing, is nearly a copy of something earlier.

    With `read`, which returns the characters start .. end - 1, stretches in doubt are compared as
    texts; without, the sample decides, less surely. `each` may have several processes look.
    """
    judge = partial(_judge, places=index.places(), read=read, spacing=spacing)
    yield from each(judge, _find_segments(index, spacing, each))


def _find_segments(index: Index, spacing: int, each: Each) -> Iterator["_Segments"]:
    none = np.empty(0, dtype=np.int64)
    matches = _Matches(none, none)
    for repeats in index.repeats(each):
        matches = _join(matches, _matches(repeats))
        found, matches = _take_segments(matches, repeats.end - HELD_BACK, spacing)
        yield found
    found, _ = _take_segments(matches, 1 << 62, spacing)
    yield found


def _matches(repeats: Repeats) -> _Matches:
    """Return each repeat with the first of its hash and, where that is another, the one before."""
    counts = 1 + (repeats.first != repeats.previous)
    at = np.cumsum(counts) - counts
    items = np.repeat(repeats.items, counts)
    sources = np.repeat(repeats.previous, counts)
    sources[at] = repeats.first
    return _Matches(items, sources)


def _join(one: _Matches, two: _Matches) -> _Matches:
    return _Matches(*(np.concatenate(both) for both in zip(one, two, strict=True)))


def _take_segments(matches: _Matches, limit: int, spacing: int) -> tuple[_Segments, _Matches]:
    """Return the segments that end before the item `limit`, and what is to be looked at again."""
    chains, size = _chain(matches), SEGMENT // spacing
    if library := find_library(len(chains)):
        columns = np.empty((len(_Segments._fields), len(chains)), dtype=np.int64)
        again = np.empty(len(chains), dtype=np.bool_)
        count = library.cut_segments(
            *(column.ctypes.data for column in (*matches, chains)),
            *(len(chains), limit, LEAST, size, columns.ctypes.data, again.ctypes.data),
        )
        if count < 0:
            raise MemoryError
        return _Segments(*columns[:, :count]), _again(matches, again)
    kept = np.flatnonzero(np.bincount(chains, minlength=len(chains))[chains] >= LEAST)
    kept = kept[np.argsort(chains[kept], kind="stable")]
    chains, items, sources = chains[kept], matches.items[kept], matches.sources[kept]
    heads = _starts(chains)
    lengths = np.diff(np.append(heads, len(items)))
    pieces = np.maximum(1, (items[heads + lengths - 1] - items[heads] + 1) // size)
    piece = np.minimum(
        (items - np.repeat(items[heads], lengths)) // size, np.repeat(pieces, lengths) - 1
    )
    at = _starts(chains, piece)
    if not len(at):
        segments = _Segments(*[np.empty(0, dtype=np.int64)] * 7)
        return segments, _again(matches, matches.items >= limit)
    step, source_step = (np.diff(column, prepend=0) for column in (items, sources))
    breaks = (step > 1) | (source_step > 1)
    breaks[at] = False
    is_new = step > 0  # an item can match twice in a chain
    is_new[at] = True
    segments = _Segments(
        chains[at].astype(np.int64),
        items[at],
        np.maximum.reduceat(items, at),
        np.minimum.reduceat(sources, at),
        np.maximum.reduceat(sources, at),
        np.add.reduceat(is_new.astype(np.int64), at),
        np.add.reduceat(breaks.astype(np.int64), at),
    )
    done = segments.last < limit
    again = matches.items >= limit
    again[kept[~np.repeat(done, np.diff(np.append(at, len(items))))]] = True
    segments = segments.pick(done)
    return segments.pick(segments.matches >= LEAST), _again(matches, again)


def _again(matches: _Matches, which: Flags) -> _Matches:
    return _Matches(matches.items[which], matches.sources[which])


def _starts(*columns: npt.NDArray[np.integer]) -> Positions:
    """Return where one of the columns has another value than before."""
    if not len(columns[0]):
        return np.empty(0, dtype=np.int64)
    differs = np.zeros(len(columns[0]), dtype=np.bool_)
    differs[0] = True
    for column in columns:
        differs[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(differs)


def _chain(matches: _Matches) -> npt.NDArray[np.int32]:
    """Return for each match the first of its chain: those that go on from one another."""
    items, sources = matches
    links = np.arange(len(items), dtype=np.int32)
    if library := find_library(len(items)):
        addresses = items.ctypes.data, sources.ctypes.data
        library.chain_matches(*addresses, len(items), GAP, DRIFT, links.ctypes.data)
        return links
    waiting = links[1:]
    for back in range(1, 2 * GAP + 1):
        if back > 1:
            waiting = waiting[np.searchsorted(waiting, back) :]
            step = items[waiting] - items[waiting - back]
            source_step = sources[waiting] - sources[waiting - back]
        else:
            step, source_step = np.diff(items), np.diff(sources)
        is_near = step <= GAP
        goes_on = is_near & (step > 0) & _is_within(source_step, 1, GAP)
        goes_on &= _is_within(step - source_step, -DRIFT, DRIFT)
        links[waiting[goes_on]] -= back
        waiting = waiting[is_near & ~goes_on]
        if not len(waiting):
            break
    while not np.array_equal(further := links[links], links):
        links = further
    return links.astype(np.int64)


def _is_within(numbers: Positions, least: int, most: int) -> Flags:
    return (numbers - least).view(np.uint64) <= np.uint64(most - least)


def _judge(segments: _Segments, *, places: Places, read: Read | None, spacing: int) -> NearCopies:
    """Return the segments that are near copies, those of a chain that follow each other as one."""
    alike, spread = segments.similarity(spacing)
    if read is None:
        accepted = alike >= ALIKE
    else:
        accepted = alike - spread >= ALIKE
        possible = alike + spread >= HOPELESS
        accepted |= _read_doubtful(segments, accepted, possible & ~accepted, places, read)
    which = np.flatnonzero(accepted)
    segments = segments.pick(which)
    at = _starts(segments.chains, which - np.arange(len(which)))
    if not len(at):
        return NearCopies(*[np.empty(0, dtype=np.int64)] * 4)
    starts, _ = places.of(segments.first[at])
    _, ends = places.of(np.maximum.reduceat(segments.last, at))
    source_starts, _ = places.of(np.minimum.reduceat(segments.source_first, at))
    _, source_ends = places.of(np.maximum.reduceat(segments.source_last, at))
    copies = NearCopies(starts, ends, source_starts, source_ends)
    return NearCopies(*(column[ends - starts >= SHORTEST] for column in copies))


def _read_doubtful(
    segments: _Segments, accepted: Flags, doubtful: Flags, places: Places, read: Read
) -> Flags:
    """Return which of the `doubtful` segments are alike as texts, but for those covered already."""
    alike = np.zeros(len(accepted), dtype=np.bool_)
    which = np.flatnonzero(doubtful)
    if not len(which):
        return alike
    base = int(segments.first.min())
    changes = np.zeros(int(segments.last.max()) - base + 2, dtype=np.int64)
    np.add.at(changes, segments.first[accepted] - base, 1)
    np.add.at(changes, segments.last[accepted] - base + 1, -1)
    covered = np.cumsum(changes) > 0
    before = np.cumsum(np.append(0, covered))
    first, last = segments.first[which] - base, segments.last[which] - base
    which = which[before[last + 1] - before[first] < COVERED * (last - first + 1)]
    picked = segments.pick(which)
    own = _ranges(places, picked.first, picked.last)
    source = _ranges(places, picked.source_first, picked.source_last)
    ends = (picked.last - base + 1).tolist()
    parts = [slice(*part) for part in zip((picked.first - base).tolist(), ends, strict=True)]
    waiting = np.argsort(-picked.matches, kind="stable").tolist()
    while waiting:  # what another will cover, if that is alike, waits
        assumed, chosen, rest = covered.copy(), list[int](), list[int]()
        for at in waiting:
            part = assumed[parts[at]]
            is_covered = np.count_nonzero(part) >= COVERED * len(part)
            (rest if is_covered else chosen).append(at)
            part[:] = True
        for at in chosen:
            if similarity(read(*own[at]), read(*source[at])) >= ALIKE:
                covered[parts[at]] = True
                alike[which[at]] = True
        waiting = rest if chosen else []
    return alike


def _ranges(places: Places, first: Positions, last: Positions) -> list[Range]:
    starts, ends = places.of(first)[0], places.of(last)[1]
    return list(zip(starts.tolist(), ends.tolist(), strict=True))
