"""Faults of a corpus: what cleaners would take out, and where, with nothing changed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from nanogpt2.text.cleaning.cleaner import Cleaner, Found, Tally
from nanogpt2.text.cleaning.controls import find_controls
from nanogpt2.text.cleaning.licences import Licences
from nanogpt2.text.cleaning.mojibake import find_mojibake

DISTINCT = 10_000  # different finds of a cleaner that are told apart; more are only counted
SHOWN_OF_OLD = 60  # characters of what is taken out

# The switch in params.yaml that mends each, and what looks for it.
CLEANERS: dict[str, Callable[[Callable[[Found], None]], Cleaner]] = {
    "clean.encoding: auto": lambda say: Cleaner(find_mojibake, say),
    "clean.control_characters: remove": lambda say: Cleaner(find_controls, say),
    "clean.licences: remove": Licences,
}


@dataclass(frozen=True)
class Example:
    """One thing found, such as Ã© for é: how often, and the first character of the corpus."""

    kind: str
    old: str
    new: str
    count: int
    first: int


@dataclass
class Fault:
    """All that one cleaner finds in a corpus, document by document."""

    switch: str
    start: int = 0  # of the document under way in the corpus
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    first: dict[tuple[str, str, str], int] = field(default_factory=dict)
    cleaner: Cleaner = field(init=False)

    def __post_init__(self) -> None:
        self.cleaner = CLEANERS[self.switch](self._note)

    def _note(self, found: Found) -> None:
        old = found.old if len(found.old) < SHOWN_OF_OLD else " ".join(found.old.split())
        key = (found.kind, old[:SHOWN_OF_OLD], found.new[:SHOWN_OF_OLD])
        if key in self.counts or len(self.counts) < DISTINCT:
            self.counts[key] += 1
            self.first.setdefault(key, found.start + self.start)

    def push(self, block: str) -> None:
        """Look at a block of the document."""
        self.cleaner.push(block)

    def finish(self, start: int) -> None:
        """End the document; the next one begins at the character `start` of the corpus."""
        self.cleaner.finish()
        self.start = start

    @property
    def tally(self) -> Tally:
        """How many places, documents and characters."""
        return self.cleaner.tally

    def examples(self) -> list[Example]:
        """Return what was found, the most frequent first."""
        return [Example(*key, count, self.first[key]) for key, count in self.counts.most_common()]
