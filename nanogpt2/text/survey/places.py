"""Places: characters of a corpus as people find them, by file and line."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from nanogpt2.text.survey.reading import Document

AROUND = 40  # characters shown on each side


@dataclass(frozen=True)
class Place:
    """A place in a corpus: its file, its line, counted from 1, and what stands there."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


def find_places(
    documents: Iterable[Document], sizes: Sequence[int], wanted: Iterable[int]
) -> dict[int, Place]:
    """Return the place of each character in `wanted`, by reading the documents that have them.

    `sizes` are the documents' lengths in characters: characters are counted over all of them.
    """
    left = sorted(set(wanted), reverse=True)
    places: dict[int, Place] = {}
    ends = accumulate(sizes)
    for document, size, end in zip(documents, sizes, ends, strict=False):
        if not left:
            break
        mine = []
        while left and left[-1] < end:
            mine.append(left.pop())
        for at, place in _in_document(document, mine, end - size) if mine else ():
            places[at] = place
    return places


def _in_document(document: Document, wanted: list[int], start: int) -> Iterator[tuple[int, Place]]:
    """Yield the place of each of the rising `wanted`, until all are found."""
    line, waiting = 1, wanted[::-1]
    for block in document.blocks:
        end, counted = start + len(block), 0
        while waiting and waiting[-1] < end:
            at = waiting[-1] - start
            line += block.count("\n", counted, at)
            counted = at
            yield waiting.pop(), Place(document.path, line, _line_around(block, at))
        if not waiting:
            return
        line += block.count("\n", counted)
        start = end


def _line_around(block: str, at: int) -> str:
    """Return the part of its line that stands around a character."""
    begin = block.rfind("\n", max(0, at - AROUND), at) + 1 or max(0, at - AROUND)
    end = block.find("\n", at, at + 2 * AROUND)
    return block[begin : end if end >= 0 else at + 2 * AROUND]


class Shown:
    """Places as plain data, by character of the corpus; one that was not looked for is empty."""

    def __init__(self, places: Mapping[int, Place]) -> None:
        self.places = places

    def __call__(self, at: int) -> dict[str, Any]:
        """Return path, line and text."""
        return asdict(self.places.get(at, Place("", 0, "")))
