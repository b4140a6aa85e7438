"""What a preparation takes of the machine, told before it begins."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nanogpt2.base.screen.screen import track
from nanogpt2.base.system.errors import DataError
from nanogpt2.text.reading import corpus
from nanogpt2.text.scan.recipe import Recipe
from nanogpt2.tokens.bpe.arrays import token_dtype

# Bytes of text for each byte of a file that is not plain: more than archives of text come to.
UNPACKED = 5
BYTES_OF_TOKEN = {"char": 1, "byte": 1}  # of text, at least; of another tokenizer:
BYTES_OF_MERGED = 2
COPIES_PERCENT = 150  # of the text: what the search for near copies writes, if all of it is copies
WORKER_BYTES = 150 << 20  # measured: benchmarks/README.md
SHOWN_FROM = 1 << 25  # bytes of text of which it is worth to speak

Item = TypeVar("Item")
Result = TypeVar("Result")


def with_progress(
    phase: str,
    items: Sequence[Item],
    results: Iterable[Result],
    *,
    size: Callable[[Item], int],
) -> Iterator[tuple[Item, Result]]:
    """Yield items with their results, and show a phase by the `size` in bytes of what is done."""
    pairs = zip(items, results, strict=True)
    return track(phase, pairs, sum(map(size, items)), "B", size=lambda pair: size(pair[0]))


@dataclass(frozen=True)
class Needs:
    """Bytes of text (of archives an estimate), and of disk and memory that they take at most."""

    text: int
    disk: int
    memory: int

    def describe(self) -> str:
        """Return them in a line."""
        return (
            f"{self.text / 1e6:,.0f} MB of text: takes up to {self.disk / 1e6:,.0f} MB of disk and"
            f" {self.memory / 1e6:,.0f} MB of memory"
        )


def estimate(paths: Iterable[Path], recipe: Recipe, workers: int) -> Needs:
    """Return what the files of a corpus take: segments, their tokens and the search for copies."""
    text = sum(p.stat().st_size * (1 if corpus.is_plain(p) else UNPACKED) for p in paths)
    name = recipe.tokenizer if isinstance(recipe.tokenizer, str) else recipe.tokenizer["name"]
    itemsize = 2 if token_dtype(recipe.vocab_size).__name__ == "uint16" else 4
    tokens = text * itemsize // BYTES_OF_TOKEN.get(name, BYTES_OF_MERGED)
    index = text * COPIES_PERCENT // 100 * recipe.find_copies
    return Needs(text, text + max(tokens, index), (1 + workers) * WORKER_BYTES)


def check_disk(needs: Needs, folder: Path) -> None:
    """Raise DataError where the disk of `folder` has less room than is needed."""
    free = shutil.disk_usage(folder).free
    if free < needs.disk:
        raise DataError(
            f"{folder}: {needs.text / 1e6:,.0f} MB of text take up to {needs.disk / 1e6:,.0f} MB of"
            f" disk here, and {free / 1e6:,.0f} MB are free; free some space"
        )
