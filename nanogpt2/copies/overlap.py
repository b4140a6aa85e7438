"""Overlap: which windows of texts stand verbatim in a source, and the longest stretch that does.

Windows are compared by 64-bit hashes made by doubling (a window is its two halves, as in Karp,
Miller and Rosenberg 1972); what matches is then compared character by character. A copy can be
missed where two different windows share a hash: odds of about 1 to 10^7 for texts of megabytes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint32]  # a text as the numbers of its characters
Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

SEED_LENGTH = 8  # windows of so many characters tell where longer stretches can be at all
CHUNK = 1 << 22  # characters hashed at a time, which bounds memory
END_OF_TEXT, END_OF_PIECE = 0x110000, 0x110001  # beyond Unicode: they stand in no text
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd: Knuth, TAOCP 6.4


@dataclass(frozen=True)
class Stretch:
    """A piece of a text: its first character and its length, both in characters."""

    start: int
    length: int


def character_codes(text: str) -> Codes:
    """Return the code points of `text`."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def share_of_windows(texts: Sequence[Codes], source: Codes, length: int) -> float:
    """Return the share (0 .. 1) of all windows of `length` in `texts` that stand in `source`.

    It is 0 where each text is shorter than a window.
    """
    n_windows = sum(max(0, len(text) - length + 1) for text in texts)
    n_shared = np.count_nonzero(find_windows(_join(texts), source, length) >= 0)
    return int(n_shared) / max(1, n_windows)


def longest_stretches(texts: Sequence[Codes], source: Codes) -> list[Stretch]:
    """Return of each text the longest piece that stands in `source`: the first of several."""
    joined, most = _join(texts), max(map(len, texts))
    near = neighbourhood(joined, source, SEED_LENGTH)

    @cache  # the searches of different texts ask for the same lengths
    def is_shared(length: int) -> Flags:
        return find_windows(joined, near if length >= SEED_LENGTH else source, length) >= 0

    stretches, start = [], 0
    for text in texts:
        stretches.append(_longest_stretch(is_shared, start, len(text), most))
        start += len(text) + 1
    return stretches


def _longest_stretch(
    is_shared: Callable[[int], Flags], start: int, size: int, most: int
) -> Stretch:
    """Search the text of `size` characters at `start` by halving: parts of a copy are copies."""
    best, too_long = Stretch(0, 0), most + 1
    while too_long - best.length > 1:
        length = (best.length + too_long) // 2
        found = np.flatnonzero(is_shared(length)[start : max(start, start + size - length + 1)])
        if found.size:
            best = Stretch(int(found[0]), length)
        else:
            too_long = length
    return best


def neighbourhood(text: Codes, source: Codes, length: int) -> Codes:
    """Return the pieces of `source` that windows of `length` of `text` cover, set apart.

    For windows of at least `length` it stands for `source`, and is far shorter.
    """
    places = [found for found, _ in _matches(np.unique(hash_windows(text, length)), source, length)]
    kept = np.zeros(len(source) + 1, dtype=bool)
    for offset in range(length):
        kept[np.concatenate(places) + offset] = True
    gaps = np.flatnonzero(kept[:-1] & ~kept[1:]) + 1  # what follows a piece gives way to a mark
    marked = np.append(source, np.uint32(END_OF_PIECE))
    marked[gaps] = END_OF_PIECE
    kept[gaps] = True
    return marked[kept]


def find_windows(text: Codes, source: Codes, length: int) -> Positions:
    """Return, for each window of `length` characters of `text`, a place in `source`, or -1."""
    hashes, first, back = np.unique(
        hash_windows(text, length), return_index=True, return_inverse=True
    )
    places = np.full(len(hashes), -1, dtype=np.int64)
    for found, which in _matches(hashes, source, length):
        places[which] = found
    hit = np.flatnonzero(places >= 0)
    places[hit[~_same(text, first[hit], source, places[hit], length)]] = -1
    return places[back]


def hash_windows(codes: Codes, length: int) -> Hashes:
    """Return a hash of each window of `length` characters; none where `codes` is shorter."""
    if len(codes) < length:
        return np.empty(0, dtype=np.uint64)
    hashes = (codes.astype(np.uint64) + np.uint64(1)) * MULTIPLIER
    width = 1
    while width < length:
        step = min(width, length - width)  # the two halves may overlap
        second = hashes[step:]
        hashes = hashes[: len(second)] * MULTIPLIER  # unsigned products wrap around
        hashes += second
        hashes ^= hashes >> np.uint64(29)
        width += step
    return hashes


def _join(texts: Sequence[Codes]) -> Codes:
    """Return `texts` one after the other, each ended so that no window in two stands anywhere."""
    end = np.array([END_OF_TEXT], dtype=np.uint32)
    return np.concatenate([part for text in texts for part in (text, end)])


def _matches(wanted: Hashes, source: Codes, length: int) -> list[tuple[Positions, Positions]]:
    """Return, by chunks, places in `source` and which of the sorted `wanted` begins there."""
    bits = max(16, (16 * len(wanted)).bit_length())
    shift = np.uint64(64 - bits)
    possible = np.zeros(1 << bits, dtype=bool)  # one look rules out most windows
    possible[(wanted * MULTIPLIER) >> shift] = True
    matches = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))]
    for start in range(0, len(source) - length + 1, CHUNK):
        hashes = hash_windows(source[start : start + CHUNK + length - 1], length)
        near = np.flatnonzero(possible[(hashes * MULTIPLIER) >> shift])
        which = np.searchsorted(wanted, hashes[near])
        hit = np.append(wanted, np.uint64(0))[which] == hashes[near]
        hit &= which < len(wanted)
        matches.append((near[hit] + start, which[hit]))
    return matches


def _same(text: Codes, at: Positions, source: Codes, places: Positions, length: int) -> Flags:
    """Return whether each window of `text` is that of `source`, one character after the other."""
    same = np.ones(len(at), dtype=bool)
    for offset in range(length):
        same &= text[at + offset] == source[places + offset]
    return same
