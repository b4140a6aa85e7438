"""Which split each character of a corpus would go into, as prepare chooses it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanogpt2.base.system.errors import DataError
from nanogpt2.text.prepare.layout import SPLITS, choose_splits, holds_out_documents
from nanogpt2.text.reading.corpus import split_sizes
from nanogpt2.text.scan.recipe import Recipe

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Splits:
    """Runs of characters of one split each: their first characters, and the numbers in SPLITS."""

    kind: str  # contiguous or documents
    starts: Numbers
    codes: npt.NDArray[np.int8]
    total: int

    def of(self, places: Numbers) -> npt.NDArray[np.int8]:
        """Return the split of each character."""
        if not len(self.starts):
            return np.zeros(len(places), dtype=np.int8)
        return self.codes[np.searchsorted(self.starts, places, side="right") - 1]

    def sizes(self) -> dict[str, int]:
        """Return the characters of each split that there is."""
        lengths = np.diff(np.append(self.starts, self.total))
        sums = np.bincount(self.codes, weights=lengths, minlength=len(SPLITS))
        return {name: int(size) for name, size in zip(SPLITS, sums, strict=True) if size}

    def runs(self) -> dict[str, int]:
        """Return of how many runs each split is, such as documents."""
        counts = np.bincount(self.codes, minlength=len(SPLITS)).tolist()
        return {name: counts[SPLITS.index(name)] for name in self.sizes()}

    def first(self, name: str) -> int:
        """Return the first character of a split."""
        return int(self.starts[np.flatnonzero(self.codes == SPLITS.index(name))[0]])


def choose(sizes: Sequence[int], keys: Sequence[int], recipe: Recipe) -> Splits:
    """Return the splits of documents of these sizes in characters, and these keys (`key_of`)."""
    ends = np.cumsum(np.array(sizes, dtype=np.int64))
    total = int(ends[-1]) if len(ends) else 0
    if holds_out_documents(len(sizes), recipe):
        codes = choose_splits(np.array(keys, dtype=np.uint64), recipe)
        return Splits("documents", np.append(0, ends[:-1])[: len(sizes)], codes, total)
    fractions = {"val_fraction": recipe.val_fraction, "test_fraction": recipe.test_fraction}
    try:
        parts = [*split_sizes(total, **fractions).values()]
    except DataError:  # too little text for so many splits
        parts = [total]
    starts = np.append(0, np.cumsum(parts)[:-1]).astype(np.int64)
    return Splits("contiguous", starts, np.arange(len(parts), dtype=np.int8), total)
