"""Lines as keys: 64-bit hashes of those that are long enough, many lines at a time."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_LINE = 40  # characters of a line that counts as repeated: shorter ones recur by right


@dataclass(frozen=True)
class LineKeys:
    """The lines of a text that are long enough: 64-bit hashes, first characters, lengths."""

    hashes: npt.NDArray[np.uint64]
    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]  # without the newline


ODD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
FINAL = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))  # of MurmurHash3
CHUNK = 1 << 16  # bytes hashed at a time: what stays in the cache


def line_keys(text: str, least: int = LEAST_LINE) -> LineKeys:
    """Return a key of each line of at least `least` characters; equal lines have equal keys.

    A key is the sum of the line's words of 8 bytes of UTF-8, each mixed with its place in the line:
    two lines of a billion share one by chance with odds of 1 to 40.
    """
    content = np.frombuffer(text.encode("utf-8", "surrogatepass"), dtype=np.uint8)
    ends = np.append(np.flatnonzero(content == 0x0A), len(content))
    starts = np.append(0, ends[:-1] + 1)
    if text.isascii():
        firsts, lengths = starts, ends - starts
    else:  # a byte that goes on with a character begins none
        begun = np.append(0, np.cumsum((content & 0xC0) != 0x80))
        firsts, lengths = begun[starts], begun[ends] - begun[starts]
    long = np.flatnonzero(lengths >= max(1, least))
    hashes = _hash_spans(content, starts[long], ends[long] - starts[long])
    return LineKeys(hashes, firsts[long], lengths[long])


def _hash_spans(
    content: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Return the hash of each span of bytes, none of them empty, in chunks of spans."""
    padded = np.append(content, np.zeros(8, dtype=np.uint8))
    words = np.ndarray((len(content),), dtype="<u8", buffer=padded, strides=(1,))
    hashes = np.empty(len(starts), dtype=np.uint64)
    total = np.append(0, np.cumsum(sizes))
    first = 0
    while first < len(starts):
        last = max(first + 1, int(np.searchsorted(total, total[first] + CHUNK)))
        hashes[first:last] = _hash_some(words, starts[first:last], sizes[first:last])
        first = last
    return hashes


def _hash_some(
    words: npt.NDArray[np.uint64], starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    counts = (sizes + 7) // 8
    ends = np.cumsum(counts)
    numbers = np.arange(ends[-1]) - np.repeat(ends - counts, counts)  # of a word in its span
    mixed = words[np.repeat(starts, counts) + 8 * numbers]
    spare = (8 * (8 * counts - sizes)).astype(np.uint64)  # bits of the last word beyond the span
    mixed[ends - 1] &= np.uint64(0xFFFFFFFFFFFFFFFF) >> spare
    mixed += (numbers + 1).astype(np.uint64) * ODD
    _mix(mixed)
    sums = np.add.reduceat(mixed, ends - counts)
    sums += sizes.astype(np.uint64) * ODD
    _mix(sums)
    return sums


def _mix(words: npt.NDArray[np.uint64]) -> None:
    """Let each bit of a word depend on all of them, in place."""
    for factor in FINAL:
        words ^= words >> np.uint64(32)
        words *= factor
    words ^= words >> np.uint64(32)
