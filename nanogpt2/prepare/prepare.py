"""Preparation: a corpus of any size becomes one token file a split, its tokenizer, a description.

The corpus is read once, into segments on disk, and encoded from there, so that memory is bounded by
the segments that workers hold. Neither the number of workers nor how the text is cut into segments
changes what is written.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt2.base import files
from nanogpt2.base.checksums import FILES, hash_files, write_sealed
from nanogpt2.base.errors import DataError
from nanogpt2.base.workers import Workers, count_cores
from nanogpt2.config.config import CleanConfig
from nanogpt2.copies.held_out import LENGTH
from nanogpt2.prepare import describe, near_copies
from nanogpt2.prepare.encode import SplitFile, SplitFiles, count_section, encode_section
from nanogpt2.prepare.layout import SPLITS, Layout, Positions, lay_out
from nanogpt2.prepare.needs import SHOWN_FROM, Shown, Silent, check_disk, estimate
from nanogpt2.prepare.overlap import Shared, gather_held_out, write_windows
from nanogpt2.prepare.repeated_lines import search_lines
from nanogpt2.scan.blocks import BLOCK_BYTES
from nanogpt2.scan.parts import Piece, plan_parts
from nanogpt2.scan.recipe import Recipe
from nanogpt2.scan.scan import LEAST_BLOCK_BYTES, Scan, scan_part
from nanogpt2.scan.segments import Segment
from nanogpt2.scan.sources import check_sources
from nanogpt2.text import corpus
from nanogpt2.tokens.bpe import END_OF_TEXT, BytePairTokenizer
from nanogpt2.tokens.merges import train_from_words
from nanogpt2.tokens.tokenizer import (
    CharTokenizer,
    Tokenizer,
    check_vocab_size,
    load_tokenizer,
    train_tokenizer,
)

NOTHING = np.empty((0, 2), np.int64)  # removed


def prepare(
    source: str | Path,
    folder: str | Path,
    *,
    tokenizer: str | Mapping[str, Any],
    vocab_size: int,
    fractions: tuple[float, float],
    block_size: int | None = None,
    split: str = "auto",
    separator: str = "\n",
    text_field: str = "text",
    find_copies: bool = True,
    clean: CleanConfig | None = None,
    workers: int | None = 1,
    block_bytes: int = BLOCK_BYTES,
    shown: Shown | None = None,
) -> dict[str, Any]:
    """Read the corpus `source`, write `folder` anew and return its description (dataset.json).

    `tokenizer` is the name of one that is made for the text, or plain data that describes one,
    whatever `vocab_size` is. `fractions` are those of the val and test splits; the schema of
    params.yaml explains what follows them. Work is done in so many `workers`, processes of their
    own where there are several; None takes one for each core where the text is large. Each holds
    some blocks of about `block_bytes`. `shown` is told what goes on.

    Raises DataError, with `folder` as it was, where the text cannot be used, needs more than
    `vocab_size` tokens or changed while it was read, and, with a `block_size`, where a split is too
    short to be trained on or evaluated.
    """
    clean = clean or CleanConfig()
    recipe = Recipe(
        tokenizer, vocab_size, *fractions, split, separator, text_field, find_copies, clean
    )
    source, folder, shown = Path(source), Path(folder), shown or Silent()
    needs = estimate(corpus.find_text_files(source), recipe, workers or count_cores())
    count = workers or (count_cores() if needs.text >= SHOWN_FROM else 1)
    passed_over = corpus.count_passed_over(source, but=folder)
    if needs.text >= SHOWN_FROM:
        shown.say(needs.describe())
    size = max(block_bytes, LEAST_BLOCK_BYTES)
    description: dict[str, Any] = {}

    def fill(new: Path) -> None:
        check_disk(needs, new)
        with tempfile.TemporaryDirectory(dir=new.parent) as aside, Workers(count) as processes:
            work = Work(source, recipe, Path(aside), processes, size, shown)
            description.update(work.write(new, block_size, passed_over))

    files.replace_folder(folder, fill)
    return description


@dataclass(frozen=True)
class Work:
    """One preparation: what of, and the folder and processes in which it is done."""

    source: Path
    recipe: Recipe
    folder: Path
    workers: Workers
    block_bytes: int
    shown: Shown

    def write(
        self, new: Path, block_size: int | None, passed_over: Mapping[str, int]
    ) -> dict[str, Any]:
        """Fill the folder `new` and return the description."""
        parts = list(
            plan_parts(
                corpus.find_text_files(self.source), self.recipe, block_bytes=self.block_bytes
            )
        )
        scans = self.scan(parts)
        segments = [segment for scan in scans for segment in scan.segments]
        layout, copies, removed = self.lay_out(segments)
        tokenizer = self.make_tokenizer(layout)
        write_sealed(new / "tokenizer.json", tokenizer.to_dict())
        splits, overlap = self.encode(layout, tokenizer, new)
        described = describe.describe_splits(splits)
        if block_size is not None:
            sizes = {name: part["tokens"] for name, part in described.items()}
            corpus.check_sizes(sizes, block_size, corpus=self.source)
        unseen = describe.find_unseen({name: each.used for name, each in splits.items()})
        # DVC hashes the corpus once the stage is over, and would take it for what was read
        sources = check_sources(
            self.source,
            self.recipe,
            chain.from_iterable(parts),
            chain.from_iterable(scan.sha256 for scan in scans),
            workers=self.workers,
        )
        description = {
            "tokenizer": tokenizer.name,
            "vocabulary": tokenizer.size,
            "characters": sum(each.characters for each in splits.values()),
            "tokens": sum(each.tokens for each in splits.values()),
            "documents": layout.documents,
            "split": layout.kind,
            "splits": described,
            "sha256": {name: each.text.hexdigest() for name, each in splits.items()},
            "overlap": {"window": LENGTH, **overlap} if self.recipe.find_copies else None,
            "only_held_out": {name: len(each) for name, each in unseen.items()},
            "sources": [vars(source) for source in sources],
            "passed_over": dict(passed_over),
            **copies,
            "removed": describe.add_tallies(scan.removed for scan in scans) | removed,
            "warnings": [
                *describe.warn_of_size(sources),
                *describe.warn_of_overlap(overlap),
                *describe.warn_of_near_copies(copies) * ("near_copies" not in removed),
                *describe.warn_of_unseen(unseen, tokenizer),
            ],
        }
        hashes = {f"{name}.bin": each.content.hexdigest() for name, each in splits.items()}
        description[FILES] = hash_files(new, ["tokenizer.json"]) | hashes
        write_sealed(new / "dataset.json", description)
        return description

    def scan(self, parts: Sequence[Sequence[Piece]]) -> list[Scan]:
        """Return what the parts of the corpus hold, and leave their segments in the folder."""
        read = partial(
            scan_part, recipe=self.recipe, folder=self.folder, block_bytes=self.block_bytes
        )
        of = sum(piece.bytes for part in parts for piece in part)
        scans: list[Scan] = []
        done = 0
        for scan in self.workers.each(read, enumerate(parts)):
            scans.append(scan)
            done += scan.bytes
            self.shown.progress("read", done, of)
        corpus.raise_problems([problem for scan in scans for problem in scan.problems])
        if all(scan.is_blank for scan in scans):
            raise DataError(f"corpus: {self.source} holds no text; put some into its files")
        return scans

    def lay_out(self, segments: Sequence[Segment]) -> tuple[Layout, dict[str, Any], dict[str, Any]]:
        """Return where the text goes, how much is a copy, and what was removed by each switch."""
        layout = lay_out(segments, NOTHING, self.recipe)
        clean, where = self.recipe.clean, (self.folder, self.workers, self.shown)
        found: dict[str, Positions] = {}
        figures = {}
        if clean.repeated_lines == "remove":
            found["repeated_lines"] = search_lines(segments, *where)
        if self.recipe.find_copies or clean.near_copies == "remove":
            copies = near_copies.search(segments, *where)
            figures["near_copies"] = near_copies.describe_copies(copies, layout.places())
            if clean.near_copies == "remove":
                found["near_copies"] = near_copies.pieces_of(copies.starts, copies.ends)
        if not found:
            return layout, figures, {}
        starts, ends = np.concatenate([*found.values()]).T
        removed = near_copies.pieces_of(starts, ends)
        tallies = {name: describe.count_pieces(pieces) for name, pieces in found.items()}
        return lay_out(segments, removed, self.recipe), figures, tallies

    def make_tokenizer(self, layout: Layout) -> Tokenizer:
        """Return the tokenizer that is given, or one made for the text."""
        recipe = self.recipe
        if not isinstance(recipe.tokenizer, str):
            return load_tokenizer(recipe.tokenizer)
        if recipe.tokenizer == CharTokenizer.name:
            points = {int(p) for section in layout.sections for p in section.segment.points}
            between = recipe.separator if layout.documents > 1 else ""
            tokenizer: Tokenizer = CharTokenizer.train("".join(map(chr, points)) + between)
        elif recipe.tokenizer == BytePairTokenizer.name:
            special = [END_OF_TEXT] if recipe.separator == END_OF_TEXT else []
            tokenizer = train_from_words(self.count_words(layout), recipe.vocab_size, special)
        else:
            tokenizer = train_tokenizer(recipe.tokenizer, (), vocab_size=recipe.vocab_size)
        check_vocab_size(recipe.vocab_size, tokenizer.size)
        return tokenizer

    def count_words(self, layout: Layout) -> Counter[bytes]:
        """Return how often each word stands in the training text, or in a share of it."""
        count = partial(count_section, layout=layout.without_sections(), folder=self.folder)
        counts: Counter[bytes] = Counter()
        done, of = 0, sum(section.segment.bytes for section in layout.sections)
        for section, found in zip(
            layout.sections, self.workers.each(count, layout.sections), strict=True
        ):
            counts.update(found)
            done += section.segment.bytes
            self.shown.progress("count words", done, of)
        return counts

    def encode(
        self, layout: Layout, tokenizer: Tokenizer, new: Path
    ) -> tuple[dict[str, SplitFile], dict[str, float]]:
        """Write the token files; return what each holds, and how much of it train has too."""
        shared = self.find_shared(layout)
        encode = partial(
            encode_section,
            layout=layout.without_sections(),
            tokenizer=new / "tokenizer.json",
            folder=self.folder,
            windows=shared.path if shared else None,
        )
        results = self.workers.each(encode, layout.sections)
        done, of = 0, sum(section.segment.bytes for section in layout.sections)
        with SplitFiles(new, tokenizer) as splits:
            for section, found in zip(layout.sections, results, strict=True):
                splits.add(found)
                for run in found:
                    if shared and run.split == SPLITS[0]:
                        shared.add(run.met, run.head, run.tail)
                Path(self.folder, section.segment.name).unlink(missing_ok=True)
                done += section.segment.bytes
                self.shown.progress("encode", done, of)
            return splits.in_order(), shared.shares() if shared else {}

    def find_shared(self, layout: Layout) -> Shared | None:
        """Return what will tell how much held-out text stands in training text, where asked."""
        if not self.recipe.find_copies:
            return None
        path = self.folder / "windows"
        write_windows(path, gather_held_out(layout, self.folder, self.workers))
        return Shared(path)
