"""An index on disk of what was seen before: equal hashes, found in bounded memory at any size.

Items are split by their hash into partitions that fit in memory, each of which is sorted; what
is found is split again, by place, to come back in order (a Grace hash join: Kitsuregawa 1983).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nanogpt2.copies.library import find_library
from nanogpt2.copies.windows import Hashes, Positions, Samples

BUFFER = 1 << 19  # items kept in memory before they are written
PARTITION_BITS = 9
BUCKET_BITS = 18  # items that come back together
STREAM_BITS = 48  # an item's number: its stream above, its place in the stream below
LENGTH_BITS = 16  # a place: where it starts above, its length below
ITEM = np.dtype([("hash", "<u8"), ("item", "<i8")])
REPEAT = np.dtype([("item", "<i8"), ("first", "<i8"), ("previous", "<i8")])

Records = npt.NDArray[np.void]


class Repeats(NamedTuple):
    """Items that are not the first of their hash, in order, with the first and the one before.

    The three are numbers of items: `Index.places` tells where they stand.
    """

    items: Positions
    first: Positions
    previous: Positions
    end: int  # all items of the stream below this number have come


class Index:
    """Which items were seen before, by hash: add all, then ask once.

    Items belong to streams, 0, 1, ...: texts that are counted for themselves, such as splits. The
    items of a stream are added in order; what stands in an earlier stream comes first, whenever it
    was added. It holds some 100 MB, and writes to `folder` 24 bytes an item, and 24 for a repeat.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.sizes: list[int] = []  # items in each stream
        self._partitions = _Sorted(self.folder / "items", ITEM)
        self._places: list[_Column] = []

    def add(self, hashes: Hashes, starts: Positions, ends: Positions, *, stream: int = 0) -> None:
        """Add items in order: each covers start .. end - 1 of its stream, 65,535 at most."""
        while len(self.sizes) <= stream:
            self._places.append(_Column(self.folder / f"places-{len(self.sizes)}"))
            self.sizes.append(0)
        first = (stream << STREAM_BITS) + self.sizes[stream]
        records = np.empty(len(hashes), dtype=ITEM)
        records["hash"] = hashes
        records["item"] = np.arange(first, first + len(hashes))
        self._partitions.add(records, hashes >> np.uint64(64 - PARTITION_BITS))
        lengths = np.minimum(ends - starts, (1 << LENGTH_BITS) - 1)
        self._places[stream].add((starts << LENGTH_BITS) | lengths)
        self.sizes[stream] += len(hashes)

    def places(self, items: Positions) -> tuple[Positions, Positions, Positions]:
        """Return the stream, the start and the end of each item."""
        streams, at = items >> STREAM_BITS, items & ((1 << STREAM_BITS) - 1)
        packed = np.empty(len(items), dtype=np.int64)
        for stream in range(len(self.sizes)):
            of = np.flatnonzero(streams == stream)
            packed[of] = self._places[stream].read(at[of])
        starts = packed >> LENGTH_BITS
        return streams, starts, starts + (packed & ((1 << LENGTH_BITS) - 1))

    def repeats(self) -> Iterator[Repeats]:
        """Yield what was seen before, once, stream by stream in order, about 2^18 items a time."""
        numbers = np.cumsum([0] + [(size >> BUCKET_BITS) + 1 for size in self.sizes])
        found = _Sorted(self.folder / "repeats", REPEAT)
        for records in self._partitions.take_all(1 << PARTITION_BITS):
            repeats = _find_repeats(records)
            streams = repeats["item"] >> STREAM_BITS
            at = repeats["item"] & ((1 << STREAM_BITS) - 1)
            found.add(repeats, numbers[streams] + (at >> BUCKET_BITS))
        buckets = found.take(int(numbers[-1]))
        for stream, size in enumerate(self.sizes):
            base = stream << STREAM_BITS
            for start in range(base, base + size + 1, 1 << BUCKET_BITS):
                records = next(buckets)
                place = np.full(1 << BUCKET_BITS, -1, dtype=np.int64)
                place[records["item"] - start] = np.arange(len(records))
                order = place[place >= 0]
                yield Repeats(
                    records["item"][order],
                    records["first"][order],
                    records["previous"][order],
                    min(start + (1 << BUCKET_BITS), base + size),
                )

    def close(self) -> None:
        """Remove what was written."""
        self._partitions.close()
        for column in self._places:
            column.close()

    def __enter__(self) -> "Index":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def add_samples(index: Index, samples: Samples, *, start: int, stream: int = 0) -> None:
    """Add the samples of a piece of text that begins at the character `start` of its stream."""
    index.add(samples.hashes, samples.starts + start, samples.ends + start, stream=stream)


def _find_repeats(records: Records) -> Records:
    """Return what of a partition is not the first of its hash, in any order."""
    streams = (records["item"] >> STREAM_BITS).astype(np.uint16)
    if streams.any():
        records = records[np.argsort(streams, kind="stable")]
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


class _Sorted:
    """Records in numbered parts, which are files once there are many."""

    def __init__(self, folder: Path, kind: np.dtype[np.void]) -> None:
        self.folder, self.kind = folder, kind
        self._records: list[Records] = []
        self._parts: list[npt.NDArray[np.uint16]] = []
        self._waiting = 0
        self._written: set[int] = set()

    def add(self, records: Records, parts: npt.NDArray[np.integer]) -> None:
        """Add records, each with the number of its part, 65,535 at most."""
        self._records.append(records)
        self._parts.append(parts.astype(np.uint16))
        self._waiting += len(records)
        if self._waiting >= BUFFER:
            self._write()

    def _grouped(self) -> Iterator[tuple[int, Records]]:
        """Yield what waits in memory, part by part, in the order in which it came."""
        if not self._waiting:
            return
        parts, records = np.concatenate(self._parts), np.concatenate(self._records)
        self._records, self._parts, self._waiting = [], [], 0
        grouped, ends = _group(parts, records)
        for part, end in enumerate(ends):
            start = ends[part - 1] if part else 0
            if start < end:
                yield part, grouped[start:end]

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for part, records in self._grouped():
            with self._path(part).open("ab") as file:
                records.tofile(file)
            self._written.add(part)

    def take_all(self, count: int) -> Iterator[Records]:
        """Yield the records of `count` parts, those that are no file together, and forget them."""
        if self._written:
            yield from self.take(count)
        elif self._waiting:
            yield np.concatenate(self._records)
            self._records, self._parts, self._waiting = [], [], 0

    def take(self, count: int) -> Iterator[Records]:
        """Yield the records of each of `count` parts, and forget them."""
        if self._written:
            self._write()
        waiting = dict(self._grouped())
        for part in range(count):
            if part in self._written:
                records = np.fromfile(self._path(part), dtype=self.kind)
                self._written.remove(part)
                self._path(part).unlink()
                yield records
            else:
                yield waiting.pop(part, np.empty(0, dtype=self.kind))

    def _path(self, part: int) -> Path:
        return self.folder / f"{part}.bin"

    def close(self) -> None:
        for part in self._written:
            self._path(part).unlink(missing_ok=True)
        if self.folder.is_dir():
            self.folder.rmdir()


def _group(parts: npt.NDArray[np.uint16], records: Records) -> tuple[Records, list[int]]:
    """Return `records` part by part, in the order in which they came, and where each part ends."""
    library = find_library(len(parts))
    if library is None:
        order = np.argsort(parts, kind="stable")
        return records[order], np.cumsum(np.bincount(parts)).tolist()
    grouped, ends = np.empty_like(records), np.empty(int(parts.max()) + 1, dtype=np.int64)
    library.group_records(
        *(records.ctypes.data, parts.ctypes.data, len(parts), records.itemsize // 8, len(ends)),
        *(grouped.ctypes.data, ends.ctypes.data),
    )
    return grouped, ends.tolist()


class _Column:
    """Numbers in order, in a file once there are many."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[Positions] = []
        self._n_waiting = 0
        self._is_written = False

    def add(self, numbers: Positions) -> None:
        self._waiting.append(numbers)
        self._n_waiting += len(numbers)
        if self._n_waiting >= BUFFER:
            self._write()

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            for numbers in self._waiting:
                numbers.tofile(file)
        self._waiting, self._n_waiting, self._is_written = [], 0, True

    def read(self, at: Positions) -> Positions:
        """Return the numbers at the places `at`."""
        if not len(at):
            return np.empty(0, dtype=np.int64)
        if not self._is_written:
            self._waiting = [np.concatenate(self._waiting)]
            return self._waiting[0][at]
        if self._waiting:
            self._write()
        mapped = np.memmap(self.path, dtype=np.int64, mode="r")
        return np.asarray(mapped[at])

    def close(self) -> None:
        if self._is_written:
            self.path.unlink(missing_ok=True)
