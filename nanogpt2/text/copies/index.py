"""An index on disk of what was seen before: equal hashes, found in bounded memory at any size.

Items are grouped by their hash, so that those of some hashes fit in memory, and what is found of
them is grouped by place, to come back in order (a Grace hash join: Kitsuregawa 1983).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nanogpt2.text.copies.library import find_library
from nanogpt2.text.copies.windows import Hashes, Positions, Samples

BUFFER = 1 << 19  # items kept in memory before they are written
GROUP_BITS = 11  # of a hash: what is found together is some of the groups that these make
TOGETHER = 1 << 18  # items that are in memory together, and that come back together
LENGTH_BITS = 16  # a place: where it starts above, its length below
PAGE = 1 << 13  # places that are read together
ITEM = np.dtype([("hash", "<u8"), ("item", "<i8")])
REPEAT = np.dtype([("item", "<i8"), ("first", "<i8"), ("previous", "<i8")])

Records = npt.NDArray[np.void]
Each = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]  # such as map


class Repeats(NamedTuple):
    """Items that are not the first of their hash, in order, with the first and the one before.

    The three are numbers of items: `Places` tells where they stand.
    """

    items: Positions
    first: Positions
    previous: Positions
    end: int  # all items below this number have come


class Index:
    """Which items were seen before, by hash: add all, in order, then ask once.

    It holds some 50 MB, and writes to `folder` 24 bytes an item, and 24 for a repeat.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.size = 0  # items
        self._items = self.folder / "items.bin"
        self._found = self.folder / "repeats.bin"
        # where each run begins in that file, in records, and in the run each group
        self._runs: list[tuple[int, npt.NDArray[np.uint32]]] = []
        self._waiting: list[Records] = []
        self._n_waiting = 0
        self._places = Places(self.folder / "places.bin")

    def add(self, hashes: Hashes, starts: Positions, ends: Positions) -> None:
        """Add the next items: each covers the characters start .. end - 1, 65,535 at most."""
        records = np.empty(len(hashes), dtype=ITEM)
        records["hash"] = hashes
        records["item"] = np.arange(self.size, self.size + len(hashes))
        self._waiting.append(records)
        self._n_waiting += len(records)
        self._places.add(starts, ends)
        self.size += len(hashes)
        if self._n_waiting >= BUFFER:
            self._write()

    def _write(self) -> None:
        """Write what waits, grouped by hash."""
        records = np.concatenate([np.empty(0, ITEM), *self._waiting])
        groups = (records["hash"] >> np.uint64(64 - GROUP_BITS)).astype(np.uint16)
        grouped, ends = _group(groups, records, 1 << GROUP_BITS)
        with self._items.open("ab") as file:
            begin = file.tell() // ITEM.itemsize
            self._runs.append((begin, np.append(0, ends).astype(np.uint32)))
            grouped.tofile(file)
        self._waiting, self._n_waiting = [], 0

    def places(self) -> "Places":
        """Return where the items stand, for this process and others."""
        self._places.write()
        return self._places

    def repeats(self, each: Each = map) -> Iterator[Repeats]:
        """Yield what was seen before, once, in order, about 2^18 items a time.

        `each` may have several processes find it.
        """
        self._write()
        self._found.touch()
        begins = np.array([begin for begin, _ in self._runs])
        groups = np.stack([groups for _, groups in self._runs])
        cuts = _cut(groups.sum(axis=0, dtype=np.int64))
        sizes = [int(groups[:, cut].sum(dtype=np.int64)) for cut in cuts]  # items before each cut
        tasks = (
            (groups[:, part] + begins[:, None], size)
            for part, size in zip(map(list, pairwise(cuts)), sizes, strict=False)
        )
        n_parts = self.size // TOGETHER + 1
        find = partial(_find_part, items=self._items, found=self._found, n_parts=n_parts)
        ends = np.stack(list(each(find, tasks)))
        for part in range(n_parts):
            where, base = ends[:, part : part + 2] + np.array(sizes[:-1])[:, None], part * TOGETHER
            records = _read(self._found, REPEAT, where)
            at = records["item"] - base
            here, first, previous = np.zeros(TOGETHER, np.bool_), *np.empty((2, TOGETHER), np.int64)
            here[at], first[at], previous[at] = True, records["first"], records["previous"]
            at = np.flatnonzero(here)
            end = min(base + TOGETHER, self.size)
            yield Repeats(at + base, first[at], previous[at], end)

    def close(self) -> None:
        """Remove what was written."""
        for path in (self._items, self._found, self._places.path):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # not empty: not ours alone
            self.folder.rmdir()

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def add_samples(index: Index, samples: Samples, *, start: int) -> None:
    """Add the samples of a piece of text that begins at the character `start` of all text."""
    index.add(samples.hashes, samples.starts + start, samples.ends + start)


def _cut(begins: Positions) -> list[int]:
    """Return the groups at which to cut, so that those between two cuts fit in memory together.

    `begins` has the items before each group, and all of them.
    """
    cuts = [0]
    for group, end in enumerate(begins[1:].tolist()):
        if end - int(begins[cuts[-1]]) > TOGETHER and group > cuts[-1]:
            cuts.append(group)
    return [*cuts, len(begins) - 1]


def _find_part(
    part: tuple[Positions, int], *, items: Path, found: Path, n_parts: int
) -> npt.NDArray[np.uint32]:
    """Find the repeats among items that are read together, and write them, grouped by place.

    `part` is where in the file of all items they are, (N, 2), and after how many records in the
    file of what is found there is room for them; return where each group begins and ends there.
    """
    where, before = part
    repeats = _find_repeats(_read(items, ITEM, where))
    grouped, ends = _group((repeats["item"] // TOGETHER).astype(np.uint16), repeats, n_parts)
    with found.open("r+b") as file:
        file.seek(before * REPEAT.itemsize)
        grouped.tofile(file)
    return np.append(0, ends).astype(np.uint32)


def _read(path: Path, kind: np.dtype[np.void], where: Positions) -> Records:
    """Return the records start .. end - 1 of a file, of each of the rows (N, 2), in order."""
    records = np.empty(int((where[:, 1] - where[:, 0]).sum()), dtype=kind)
    content, at = records.view(np.uint8).data, 0
    with path.open("rb", buffering=0) as file:
        for start, end in (where * kind.itemsize).tolist():
            if start < end:
                file.seek(start)
                at += file.readinto(content[at : at + end - start])
    return records


def _find_repeats(records: Records) -> Records:
    """Return what of some items is not the first of its hash, in any order."""
    library = find_library(len(records))
    if library is None:
        return _find_repeats_sorted(records)
    repeats = np.empty(len(records), dtype=REPEAT)
    count = library.find_repeats(records.ctypes.data, len(records), repeats.ctypes.data)
    if count < 0:
        raise MemoryError
    return repeats[:count]


def _find_repeats_sorted(records: Records) -> Records:
    order = np.argsort(records["hash"], kind="stable")
    hashes, items = records["hash"][order], records["item"][order]
    later = np.append(False, hashes[1:] == hashes[:-1])[: len(hashes)]  # as the one before
    heads, at = np.flatnonzero(~later), np.flatnonzero(later)
    repeats = np.empty(len(at), dtype=REPEAT)
    repeats["item"], repeats["previous"] = items[at], items[at - 1]
    repeats["first"] = items[heads[np.searchsorted(heads, at) - 1]]
    return repeats


def _group(
    groups: npt.NDArray[np.uint16], records: Records, n_groups: int
) -> tuple[Records, Positions]:
    """Return `records` group by group, in the order in which they came, and where each ends."""
    library = find_library(len(groups))
    if library is None:
        order = np.argsort(groups, kind="stable")
        return records[order], np.cumsum(np.bincount(groups, minlength=n_groups))
    grouped, ends = np.empty_like(records), np.empty(n_groups, dtype=np.int64)
    library.group_records(
        *(records.ctypes.data, groups.ctypes.data, len(groups), records.itemsize // 8, n_groups),
        *(grouped.ctypes.data, ends.ctypes.data),
    )
    return grouped, ends


class Places:
    """Where items stand, in a file: each covers the characters start .. end - 1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[Positions] = []
        self._n_waiting = 0

    def add(self, starts: Positions, ends: Positions) -> None:
        """Add the places of the next items."""
        lengths = np.minimum(ends - starts, (1 << LENGTH_BITS) - 1)
        self._waiting.append((starts << LENGTH_BITS) | lengths)
        self._n_waiting += len(starts)
        if self._n_waiting >= BUFFER:
            self.write()

    def write(self) -> None:
        """Write what waits in memory."""
        with self.path.open("ab") as file:
            for numbers in self._waiting:
                numbers.tofile(file)
        self._waiting, self._n_waiting = [], 0

    def of(self, items: Positions) -> tuple[Positions, Positions]:
        """Return the start and the end of each item, of which many are near each other."""
        packed = np.empty(len(items), dtype=np.int64)
        order = np.argsort(items, kind="stable")
        pages = items[order] // PAGE
        cuts = np.flatnonzero(np.diff(pages, prepend=-1)).tolist()
        for first, last in zip(cuts, [*cuts[1:], len(pages)], strict=False):
            start, which = int(pages[first]) * PAGE, order[first:last]
            page = np.fromfile(self.path, np.int64, PAGE, offset=8 * start)
            packed[which] = page[items[which] - start]
        starts = packed >> LENGTH_BITS
        return starts, starts + (packed & ((1 << LENGTH_BITS) - 1))
