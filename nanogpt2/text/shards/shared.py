"""A preparation spread over machines that share a folder: the same bytes as on one.

    scan 1/n ... n/n, settle, encode 1/n ... n/n, merge

Each step is a process of its own; those of a shard run anywhere and in any order. A step that was
cut off is done again.
"""

import dataclasses
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import ConfigError, DataError
from nanogpt2.base.system.stored import load, store
from nanogpt2.base.system.words import name_some
from nanogpt2.base.system.workers import Workers, count_cores
from nanogpt2.config.config import PREPARE_KEYS, get_config
from nanogpt2.text.cleaning.cleaner import Tally
from nanogpt2.text.copies.held_out import HeldOut
from nanogpt2.text.prepare.encode import Encoded
from nanogpt2.text.prepare.layout import Layout, Section
from nanogpt2.text.prepare.work import Settled, Work
from nanogpt2.text.reading import corpus
from nanogpt2.text.scan.blocks import BLOCK_BYTES
from nanogpt2.text.scan.recipe import Recipe
from nanogpt2.text.scan.scan import Scan
from nanogpt2.text.scan.segments import Segment
from nanogpt2.tokens.choice import read_named

MOST_NAMED = 10
MOST_SHARDS = 10_000  # machines; a number that is larger is surely a slip
KINDS = (Encoded, HeldOut, Layout, Scan, Section, Segment, Settled, Tally)  # of what steps leave


@dataclass(frozen=True)
class Shard:
    """One of `of` shares of the work, by its number from 1 on."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Return the shard of a text such as 2/3; ConfigError where it is none."""
        found = re.fullmatch("([0-9]{1,9})/([0-9]{1,9})", text)
        number, of = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= of <= MOST_SHARDS:
            raise ConfigError(
                f"shard: found {text}; allowed: 1/n to n/n, such as 2/3, n at most {MOST_SHARDS:,}"
            )
        return cls(number, of)

    def share(self, count: int) -> range:
        """Return which of `count` items are its own: neighbours."""
        return range(count * (self.number - 1) // self.of, count * self.number // self.of)


def shared_preparation(
    source: str | Path, folder: Path, *, workers: int | None
) -> "tuple[SharedPreparation, int]":
    """Return the preparation of a preset or params.yaml, and its block_size in tokens.

    ConfigError where its tokenizer comes with other weights, which the stage `init` reads, and
    where `folder` is a file.
    """
    if files.exists(folder) and not files.is_folder(folder):
        raise ConfigError(f"{folder}: a file; allowed: a folder that all machines see")
    config = get_config(source)
    if config.tokenizer == "from_init":
        raise ConfigError("tokenizer: found from_init; allowed: any other, or the stage prepare")
    recipe = Recipe(
        *(
            read_named(config.tokenizer),
            config.vocab_size,
            config.val_fraction,
            config.test_fraction,
        ),
        **{key: config[key] for key in PREPARE_KEYS},
    )
    count = workers or count_cores()
    preparation = SharedPreparation(Path(config.corpus), recipe, folder, count, BLOCK_BYTES)
    return preparation, config.block_size


@dataclass(frozen=True)
class SharedPreparation:
    """A preparation whose steps are done apart, in the folder `folder` that all of them see."""

    source: Path
    recipe: Recipe
    folder: Path
    workers: int
    block_bytes: int

    def scan(self, shard: Shard) -> None:
        """Read a shard of the corpus."""
        with self._work() as work:
            numbers = shard.share(len(work.parts))
            for number, scan in zip(numbers, work.scan(numbers), strict=True):
                store(self._scan_path(number), scan)

    def settle(self) -> None:
        """Decide on the splits, the tokenizer and what is removed, once all shards are scanned."""
        with self._work() as work:
            store(self._settled_path, work.settle(self._scans(work)))

    def encode(self, shard: Shard) -> None:
        """Encode a shard of what was settled."""
        settled: Settled = load(self._settled_path, KINDS)
        sections = settled.layout.sections
        numbers = shard.share(len(sections))
        left = [number for number in numbers if not self._encoded_path(number).exists()]
        with self._work() as work:
            results = work.encode(settled.layout, [sections[number] for number in left])
            for number, found in zip(left, results, strict=True):
                store(self._encoded_path(number), found)

    def merge(self, out: Path, *, block_size: int | None = None) -> dict[str, Any]:
        """Put the encoded shards together as prepared data in `out`; return its description."""
        settled: Settled = load(self._settled_path, KINDS)
        numbers = range(len(settled.layout.sections))
        self._refuse_missing("encode", [n for n in numbers if not self._encoded_path(n).exists()])
        description: dict[str, Any] = {}

        def fill(new: Path) -> None:
            description.update(
                work.merge(
                    new,
                    self._scans(work),
                    settled,
                    map(self._encoded, numbers),
                    wholes={},
                    block_size=block_size,
                    passed_over=corpus.count_passed_over(self.source, but=out),
                )
            )

        with self._work() as work:
            files.replace_folder(out, fill)
        return description

    @contextmanager
    def _work(self) -> Iterator[Work]:
        with files.write_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._check_recipe()
        paths = corpus.find_text_files(self.source)
        with Workers(self.workers) as processes:
            yield Work(
                *(self.source, paths, self.recipe, self.folder, processes),
                self.block_bytes,
            )

    def _check_recipe(self) -> None:
        """Raise ConfigError where the folder is of another corpus or other parameters."""
        path = self.folder / "recipe.json"
        asked = {"corpus": str(self.source), "block_bytes": self.block_bytes}
        asked |= dataclasses.asdict(self.recipe)
        if not path.exists():
            files.write_json(path, asked)
        elif files.read_json(path) != asked:
            raise ConfigError(
                f"{self.folder}: a preparation of another corpus or with other parameters is there"
                " (recipe.json); remove the folder, or give another"
            )

    def _scans(self, work: Work) -> list[Scan]:
        numbers = range(len(work.parts))
        self._refuse_missing("scan", [n for n in numbers if not self._scan_path(n).exists()])
        return [load(self._scan_path(number), KINDS) for number in numbers]

    def _encoded(self, number: int) -> list[Encoded]:
        found: list[Encoded] = load(self._encoded_path(number), KINDS)
        return found

    def _refuse_missing(self, step: str, numbers: list[int]) -> None:
        if numbers:
            raise DataError(
                f"{self.folder}: {step} is not done for the parts"
                f" {name_some(numbers, MOST_NAMED)}; do that step of each shard first"
            )

    @property
    def _settled_path(self) -> Path:
        return self.folder / "settled.npz"

    def _scan_path(self, number: int) -> Path:
        return self.folder / f"scan-{number:06d}.npz"

    def _encoded_path(self, number: int) -> Path:
        return self.folder / f"encoded-{number:06d}.npz"
