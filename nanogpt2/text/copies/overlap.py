"""Overlap: which windows of texts stand verbatim in a source, and the longest stretch that does.

Windows are compared by 64-bit hashes; what matches is then compared character by character. A copy
can be missed where two different windows of the texts share a hash: odds of about 1 to 10^7.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from nanogpt2.text.copies.windows import Codes, Hashes, Positions, hash_blocks, hash_windows

Flags = npt.NDArray[np.bool_]

SEED_LENGTH = 8  # windows of so many characters tell where longer stretches can be at all
END_OF_TEXT, END_OF_PIECE = 0x110000, 0x110001  # beyond Unicode: they stand in no text


@dataclass(frozen=True)
class Stretch:
    """A piece of a text: its first character and its length, both in characters."""

    start: int
    length: int


def share_of_windows(texts: Sequence[Codes], source: Codes, length: int) -> float:
    """Return the share (0 .. 1) of all windows of `length` in `texts` that stand in `source`.

    It is 0 where each text is shorter than a window.
    """
    n_windows = sum(max(0, len(text) - length + 1) for text in texts)
    n_shared = np.count_nonzero(find_windows(_join(texts), source, length) >= 0)
    return int(n_shared) / max(1, n_windows)


def longest_stretches(texts: Sequence[Codes], source: Codes) -> list[Stretch]:
    """Return of each text the longest piece that stands in `source`: the first of several."""
    search = Search(texts, SEED_LENGTH)
    search.look_in(source)
    return search.stretches


def search_pieces(texts: Sequence[Codes], source: Iterable[Codes], length: int) -> "Search":
    """Return what of `texts` stands in a source that comes piece by piece, as if it were one.

    It holds a piece, and as much before it as the longest of the texts.
    """
    search = Search(texts, length)
    before = np.empty(0, dtype=np.uint8)
    for piece in source:
        joined = np.concatenate([before, piece])
        search.look_in(joined)
        before = joined[max(0, len(joined) - max(search.most - 1, 0)) :].copy()
    return search


class Search:
    """Texts that are looked up in one source after the other: what of them stands in any.

    `stretches` are of each text the longest piece that does, the first of several; `found` says of
    each window of `length` characters, text by text, whether it does.
    """

    def __init__(self, texts: Sequence[Codes], length: int) -> None:
        self.texts, self.length = texts, length
        self.most = max(map(len, texts))
        self.stretches = [Stretch(0, 0)] * len(texts)
        self._joined = _join(texts)
        self._starts = np.cumsum([0] + [len(text) + 1 for text in texts]).tolist()
        n_windows = max(0, len(self._joined) - length + 1)
        self._found = np.zeros(n_windows, dtype=np.bool_)

    @property
    def found(self) -> list[Flags]:
        """Of each text, whether each of its windows stands in a source."""
        return [
            self._found[start : max(start, start + len(text) - self.length + 1)]
            for start, text in zip(self._starts[:-1], self.texts, strict=True)
        ]

    def share(self, texts: slice = slice(None)) -> float:
        """Return the share (0 .. 1) of the windows of all or some texts that stand in a source."""
        found = self.found[texts]
        return int(sum(map(np.count_nonzero, found))) / max(1, sum(map(len, found)))

    def look_in(self, source: Codes) -> None:
        """Look all texts up in `source`."""
        self._found |= find_windows(self._joined, source, self.length) >= 0
        seeds = [_seed_length(best.length) for best in self.stretches]
        for seed in sorted(set(seeds)):
            self._look_for(
                [number for number, each in enumerate(seeds) if each == seed], seed, source
            )

    def _look_for(self, numbers: list[int], seed: int, source: Codes) -> None:
        """Look for stretches that are as long as the known ones, or longer, of at least `seed`."""
        joined = _join([self.texts[number] for number in numbers])
        near = neighbourhood(joined, source, seed)

        @cache  # the searches of different texts ask for the same lengths
        def is_shared(length: int) -> Flags:
            return find_windows(joined, near if length >= seed else source, length) >= 0

        start = 0
        for number in numbers:
            size = len(self.texts[number])
            self.stretches[number] = _longest_stretch(
                is_shared, start, size, self.most, self.stretches[number]
            )
            start += size + 1


def _seed_length(known: int) -> int:
    """Return the largest of 8, 16, 32, ... that is no longer than `known`, or 8."""
    return max(SEED_LENGTH, 1 << max(0, known.bit_length() - 1))


def _longest_stretch(
    is_shared: Callable[[int], Flags], start: int, size: int, most: int, best: Stretch
) -> Stretch:
    """Search the text of `size` characters at `start`, beginning with one more than is known.

    Then by halving: parts of a copy are copies.
    """

    def first_of(length: int) -> int | None:
        places = np.flatnonzero(is_shared(length)[start : max(start, start + size - length + 1)])
        return int(places[0]) if places.size else None

    too_long = most + 1
    length = best.length + 1 if best.length else (1 + most) // 2
    while too_long - best.length > 1:
        at = first_of(length)
        if at is None:
            too_long = length
        else:
            best = Stretch(at, length)
        length = (best.length + too_long) // 2
    if best.length and (at := first_of(best.length)) is not None:
        best = Stretch(min(at, best.start), best.length)
    return best


def neighbourhood(text: Codes, source: Codes, length: int) -> npt.NDArray[np.uint32]:
    """Return the pieces of `source` that windows of `length` of `text` cover, set apart.

    For windows of at least `length` it stands for `source`, and is far shorter.
    """
    places, _ = _matches(np.unique(hash_windows(text, length)), source, length)
    kept = np.zeros(len(source) + 1, dtype=np.bool_)
    for offset in range(length):
        kept[places + offset] = True
    gaps = np.flatnonzero(kept[:-1] & ~kept[1:]) + 1  # what follows a piece gives way to a mark
    marked = np.append(source, np.uint32(END_OF_PIECE)).astype(np.uint32)
    marked[gaps] = END_OF_PIECE
    kept[gaps] = True
    return marked[kept]


def find_windows(text: Codes, source: Codes, length: int) -> Positions:
    """Return, for each window of `length` characters of `text`, a place in `source`, or -1."""
    hashes, first, back = np.unique(
        hash_windows(text, length), return_index=True, return_inverse=True
    )
    places = np.full(len(hashes), -1, dtype=np.int64)
    found, which = _matches(hashes, source, length)
    places[which] = found
    hit = np.flatnonzero(places >= 0)
    places[hit[~_same(text, first[hit], source, places[hit], length)]] = -1
    return places[back]


def _join(texts: Sequence[Codes]) -> Codes:
    """Return `texts` one after the other, each ended so that no window in two stands anywhere."""
    end = np.array([END_OF_TEXT], dtype=np.uint32)
    return np.concatenate([part for text in texts for part in (text, end)])


def _matches(wanted: Hashes, source: Codes, length: int) -> tuple[Positions, Positions]:
    """Return places in `source`, and which of the sorted `wanted` begins there."""
    bits = max(16, (16 * len(wanted)).bit_length())
    shift = np.uint64(64 - bits)
    possible = np.zeros(1 << bits, dtype=np.bool_)  # one look rules out most windows
    possible[wanted >> shift] = True
    places = which = np.empty(0, dtype=np.int64)
    all_places, all_which = [places], [which]
    for start, hashes in hash_blocks(source, length):
        near = np.flatnonzero(possible[hashes >> shift])
        which = np.searchsorted(wanted, hashes[near])
        hit = np.append(wanted, np.uint64(0))[which] == hashes[near]
        hit &= which < len(wanted)
        all_places.append(near[hit] + start)
        all_which.append(which[hit])
    return np.concatenate(all_places), np.concatenate(all_which)


def _same(text: Codes, at: Positions, source: Codes, places: Positions, length: int) -> Flags:
    """Return whether each window of `text` is that of `source`, one character after the other."""
    same = np.ones(len(at), dtype=np.bool_)
    for offset in range(length):
        same &= text[at + offset] == source[places + offset]
    return same
