"""Near copies in a corpus: passages that stand nearly so earlier, and those of other splits."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nanogpt2.text.copies.constants import REACH
from nanogpt2.text.copies.index import Index, add_samples
from nanogpt2.text.copies.near import find_near_copies
from nanogpt2.text.copies.windows import sample
from nanogpt2.text.prepare.layout import SPLITS
from nanogpt2.text.prepare.near_copies import pieces_of
from nanogpt2.text.survey.splits import Numbers, Splits

SHOWN = 20


@dataclass(frozen=True)
class Passage:
    """A near copy: its first character in the corpus, its length, and that of its source."""

    start: int
    length: int
    source: int


@dataclass(frozen=True)
class NearCopies:
    """What stands in a corpus nearly so earlier, and what of a held-out split is in train too."""

    passages: int
    characters: int
    in_held_out: dict[str, int]  # characters
    longest: list[Passage]


class Sampler:
    """Puts a sample of the text's windows into an index, text by text as they come."""

    def __init__(self, folder: Path) -> None:
        self.index = Index(folder)
        self._text, self._start = "", 0

    def add(self, text: str, start: int) -> None:
        """Add `text`, which begins at the character `start` of the corpus."""
        self._sample(text[:REACH])
        self._text, self._start = text, start

    def _sample(self, following: str) -> None:
        add_samples(self.index, sample(self._text, following), start=self._start)

    def find(self, splits: Splits) -> NearCopies:
        """Return the near copies in all that was added, and remove the index."""
        self._sample("")
        with self.index as index:
            found = _Gathered(splits)
            for copies in find_near_copies(index):
                found.add(np.stack([copies.starts, copies.ends, copies.source_starts]))
        return found.summarise()


class _Gathered:
    """Passages as they are found, nearly in order: how much text they cover, and the longest."""

    def __init__(self, splits: Splits) -> None:
        self.splits = splits
        self.passages = 0
        self.longest = np.empty((3, 0), dtype=np.int64)  # starts, ends, sources
        self._all: list[Numbers] = []

    def add(self, found: Numbers) -> None:
        self.passages += found.shape[1]
        self._all.append(found)
        both = np.concatenate([self.longest, found], axis=1)
        order = np.lexsort([both[0], both[0] - both[1]])[:SHOWN]
        self.longest = both[:, order]

    def summarise(self) -> NearCopies:
        starts, ends, sources = np.concatenate([np.empty((3, 0), np.int64), *self._all], axis=1)
        own, other = self.splits.of(starts), self.splits.of(sources)
        in_held_out = {}
        for code, name in enumerate(SPLITS):
            if code:
                copied = (own == code) & (other == 0)
                in_held_out[name] = _covered(starts[copied], ends[copied])
        rows = self.longest.T.tolist()
        return NearCopies(
            passages=self.passages,
            characters=_covered(starts, ends),
            in_held_out={name: n for name, n in in_held_out.items() if n},
            longest=[Passage(start, end - start, source) for start, end, source in rows],
        )


def _covered(starts: Numbers, ends: Numbers) -> int:
    """Return how many characters lie in at least one passage."""
    return int(np.diff(pieces_of(starts, ends)).sum())
