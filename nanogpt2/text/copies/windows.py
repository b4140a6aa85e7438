"""Windows of a text as 64-bit hashes, each in constant time, and a sample of them by content.

The hash is the polynomial of Karp & Rabin 1987 modulo 2^64. A sample keeps the windows whose hash
is small (as in Manber 1994), so that the same text has the same sample wherever it stands.
"""

from collections.abc import Iterator
from ctypes import CDLL
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nanogpt2.text.copies.constants import BASE, MASK, PERIOD, REACH, SPREAD, WINDOW
from nanogpt2.text.copies.library import find_library

Codes = npt.NDArray[np.uint8] | npt.NDArray[np.uint32]  # a text as the numbers of its characters
Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

SPACING = 16  # one window of so many is in the sample
MUCH = 1 << 25  # characters of which half as many windows tell enough
BLOCK = 1 << 15  # characters hashed together: what they need stays in the cache
PART = 1 << 17  # characters that the library has at a time
WHITE = (
    *(*range(0x09, 0x0E), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)),
    *(0x2028, 0x2029, 0x202F, 0x205F, 0x3000),
)  # what str.isspace says


class Samples(NamedTuple):
    """Windows of a text by their hashes: each covers the characters start .. end - 1."""

    hashes: Hashes
    starts: Positions
    ends: Positions


def character_codes(text: str) -> Codes:
    """Return the code points of `text`, as bytes where it is ASCII."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def mix(numbers: Hashes) -> Hashes:
    """Return other 64-bit numbers, as if drawn at random: the end of SplitMix64 (Steele 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


@cache
def is_black_table() -> npt.NDArray[np.bool_]:
    """Whether each of the first characters, all white space among them, is none."""
    black = np.ones(max(WHITE) + 2, dtype=np.bool_)
    black[list(WHITE)] = False
    return black


def is_black(codes: Codes) -> npt.NDArray[np.bool_]:
    """Return whether each character is no white space."""
    if codes.dtype == np.uint8:
        table = is_black_table()[:256].tobytes()
        return np.frombuffer(codes.tobytes().translate(table), dtype=np.bool_)
    return np.take(is_black_table(), codes, mode="clip")  # the last of the table is no white space


def hash_blocks(codes: Codes, length: int) -> Iterator[tuple[int, Hashes]]:
    """Yield where a block begins, and the hashes of the windows of `length` that begin in it.

    The high bits of a hash depend on all of its window, the low ones on less.
    """
    size = BLOCK if length <= BLOCK else 1 << length.bit_length()
    powers, back = _powers(BASE, 2 * size), _powers(pow(BASE, -1, 1 << 64), size)
    for start in range(0, len(codes) - length + 1, size):
        terms = codes[start : start + size + length - 1].astype(np.uint64)
        terms *= powers[: len(terms)]
        hashes = _add_windows(terms, length)
        hashes *= back[: len(hashes)]  # divided by the power of its place
        hashes *= np.uint64(SPREAD)
        yield start, hashes


def hash_windows(codes: Codes, length: int) -> Hashes:
    """Return a hash of each window of `length` characters; none where `codes` is shorter."""
    none = np.empty(0, dtype=np.uint64)
    return np.concatenate([none, *(hashes for _, hashes in hash_blocks(codes, length))])


def low_hashes(text: str, following: str, length: int, limit: int) -> Iterator[Hashes]:
    """Yield the hashes, no higher than `limit`, of the windows of `length` that begin in `text`.

    They come block by block, in order; `following` is what comes after `text`.
    """
    library = find_library(len(text))
    if library is None:
        for _, hashes in hash_blocks(character_codes(text + following[: length - 1]), length):
            yield hashes if limit >= MASK else hashes[hashes <= np.uint64(limit)]
        return
    room = np.empty(PART, dtype=np.uint64)
    for start in range(0, len(text), PART):
        end = start + PART + length - 1
        codes = character_codes(text[start:end] + following[: max(0, end - len(text))])
        size = min(PART, len(text) - start, len(codes) - length + 1)
        if size > 0:
            count = library.low_windows(
                codes.ctypes.data, codes.itemsize, size, length, limit, room.ctypes.data
            )
            yield room[:count].copy()


@cache
def _powers(base: int, count: int) -> Hashes:
    powers = np.full(count, base, dtype=np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def _add_windows(terms: Hashes, length: int) -> Hashes:
    """Return the sum of each `length` terms that follow each other, wrapped to 64 bits.

    The sums of 1, 2, 4, ... terms are those of their halves: quicker than differences of sums
    from the start, each of which waits for the one before.
    """
    n_sums = len(terms) - length + 1
    sums = np.zeros(n_sums, dtype=np.uint64)
    done, width = 0, 1
    while width <= length:
        if length & width:
            sums += terms[done : done + n_sums]
            done += width
        if 2 * width <= length:
            terms = terms[:-width] + terms[width:]
        width *= 2
    return sums


def spacing_for(n_characters: int) -> int:
    """Return the spacing of samples in which near copies are looked for in so many characters."""
    return SPACING if n_characters < MUCH else 2 * SPACING


def sample(text: str, following: str = "", *, spacing: int = SPACING) -> Samples:
    """Return about one in `spacing` of the windows that begin in `text`, chosen by their content.

    A window is 16 characters that are no white space, with what white space lies between them,
    256 characters at most; so texts that are only wrapped otherwise have the same windows. What
    consists of up to 8 characters again and again (rules, tables) has none. `following` is what
    comes after `text`, of which 256 characters are enough: then the windows of a text are those of
    its pieces, however it is cut. Positions are in characters of `text`, in order.
    """
    if not text:
        none = np.empty(0, dtype=np.int64)
        return Samples(np.empty(0, dtype=np.uint64), none, none)
    found = list(_sample_parts(text, following[:REACH], spacing))
    return Samples(*(np.concatenate(part) for part in zip(*found, strict=True)))


def _sample_parts(text: str, following: str, spacing: int) -> Iterator[Samples]:
    """Yield the sample of the windows of `text`, in order."""
    library = find_library(len(text))
    part = BLOCK if library is None else PART
    room = Samples(*np.empty((3, part), dtype=np.int64))  # for the library's results
    for start in range(0, len(text), part):
        end = start + part + REACH
        codes = character_codes(text[start:end] + following[: max(0, end - len(text))])
        size = min(part, len(text) - start)
        if library is None:
            yield _sample_block(codes, start, size, spacing)
        else:
            yield _sample_compiled(codes, start, size, spacing, library, room)


def _sample_compiled(
    codes: Codes, start: int, size: int, spacing: int, library: CDLL, room: Samples
) -> Samples:
    black = is_black_table()
    count = library.sample_windows(
        *(codes.ctypes.data, codes.itemsize, size, len(codes)),
        *(black.ctypes.data, len(black), MASK // spacing),
        *(column.ctypes.data for column in room),
    )
    hashes = room.hashes[:count].view(np.uint64).copy()
    return Samples(hashes, room.starts[:count] + start, room.ends[:count] + start)


def _sample_block(codes: Codes, start: int, size: int, spacing: int) -> Samples:
    """Return the sample of the windows that begin in the first `size` of `codes`."""
    places = np.flatnonzero(is_black(codes))
    black = codes[places]
    limit = np.uint64(MASK // spacing)
    hashes, chosen = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
    for first, block in hash_blocks(black, WINDOW):
        small = np.flatnonzero(block <= limit)
        hashes.append(block[small])
        chosen.append(small + first)
    which = np.concatenate(chosen)
    begin, end = places[which], places[which + (WINDOW - 1)] + 1
    kept = (begin < size) & (end - begin <= REACH) & ~_repeats_itself(black, which)
    return Samples(mix(np.concatenate(hashes)[kept]), begin[kept] + start, end[kept] + start)


def _repeats_itself(black: Codes, at: Positions) -> npt.NDArray[np.bool_]:
    """Return whether the windows at `at` consist of up to 8 characters again and again."""
    repeats = np.zeros(len(at), dtype=np.bool_)
    for period in range(PERIOD // 2 + 1, PERIOD + 1):  # each shorter one is half of one of these
        left = np.arange(len(at))
        for offset in range(WINDOW - period):  # a few windows are left after the first looks
            left = left[black[at[left] + offset] == black[at[left] + offset + period]]
            if not len(left):
                break
        repeats[left] = True
    return repeats
