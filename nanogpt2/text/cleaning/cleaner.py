"""A cleaner takes one thing out of documents that come in blocks, and counts what it took.

A block ends where a line does, or a document. What is cleaned does not depend on where blocks end.
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Say = Callable[["Found"], None]


@dataclass(frozen=True)
class Found:
    """What a cleaner changes: `old` at the character `start`, which becomes `new`."""

    kind: str
    start: int  # in the document where a cleaner says it, in the text where a function does
    old: str
    new: str = ""


@dataclass
class Tally:
    """What a cleaner did: documents it changed, characters it took, and places by kind."""

    documents: int = 0
    characters: int = 0
    places: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.documents + other.documents,
            self.characters + other.characters,
            self.places + other.places,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, in an order that does not depend on what came first."""
        places = dict(sorted(self.places.items()))
        return {"documents": self.documents, "characters": self.characters, "places": places}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Tally":
        """Return what `to_dict` described."""
        return cls(data["documents"], data["characters"], Counter(data["places"]))


class Cleaner:
    """Takes a document in blocks, gives it back cleaned, and goes on with the next.

    `find` yields what is to change in a block, in order. `say` is told of each, with its place in
    the document.
    """

    def __init__(self, find: Callable[[str], Iterator[Found]], say: Say | None = None) -> None:
        self.find = find
        self.say = say
        self.tally = Tally()
        self._start = 0  # of the next block in the document
        self._touched = False

    def push(self, block: str) -> str:
        """Return `block` cleaned, or what of the document can be told by now."""
        cleaned = self._replace(block, self._start)
        self._start += len(block)
        return cleaned

    def finish(self) -> str:
        """Return the rest of the document, and be ready for the next."""
        self._start, self._touched = 0, False
        return ""

    def _replace(self, text: str, offset: int) -> str:
        """Return `text`, which begins at `offset` of the document, with all that is found gone."""
        parts, end = [], 0
        for found in self.find(text):
            parts += [text[end : found.start], found.new]
            end = found.start + len(found.old)
            self._note(found, offset)
        if not parts:
            return text
        return unicodedata.normalize("NFC", "".join([*parts, text[end:]]))

    def _note(self, found: Found, offset: int) -> None:
        self.tally.documents += not self._touched
        self._touched = True
        self.tally.characters += len(found.old) - len(found.new)
        self.tally.places[found.kind] += 1
        if self.say is not None:
            self.say(Found(found.kind, found.start + offset, found.old, found.new))
