"""The steps of a preparation: scan, settle, encode, merge. Each can be done by several machines.

Scanning and encoding are done part by part; settling and merging look at all of them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt2.base.system.checksums import FILES, hash_files, write_sealed
from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.heap import release_memory
from nanogpt2.base.system.stored import store
from nanogpt2.base.system.workers import Workers
from nanogpt2.text.copies.held_out import LENGTH, HeldOut, Windows
from nanogpt2.text.prepare import describe, near_copies
from nanogpt2.text.prepare.encode import (
    Encoded,
    SplitFiles,
    count_sections,
    encode_section,
    encode_separator,
)
from nanogpt2.text.prepare.layout import SPLITS, Layout, Positions, Section, lay_out
from nanogpt2.text.prepare.needs import with_progress
from nanogpt2.text.prepare.overlap import Shared, gather_held_out, read_windows
from nanogpt2.text.prepare.repeated_lines import search_lines
from nanogpt2.text.reading import corpus
from nanogpt2.text.scan.parts import Piece, plan_parts
from nanogpt2.text.scan.recipe import Recipe
from nanogpt2.text.scan.scan import Scan, scan_part
from nanogpt2.text.scan.segments import Segment
from nanogpt2.text.scan.sources import check_sources
from nanogpt2.tokens.bpe.bpe import END_OF_TEXT, BytePairTokenizer
from nanogpt2.tokens.bpe.merges import train_from_words
from nanogpt2.tokens.tokenizer import (
    CharTokenizer,
    Tokenizer,
    check_vocab_size,
    load_tokenizer,
    read_tokenizer,
    train_tokenizer,
)

NOTHING = np.empty((0, 2), np.int64)  # removed
ADDED_UP = 4  # sections of which a worker adds up the words


@dataclass(frozen=True)
class Settled:
    """What is known of a corpus once all of it was read."""

    layout: Layout
    copies: dict[str, Any]  # figures of what is a copy
    removed: dict[str, Any]  # by each switch
    held_out: dict[str, HeldOut]  # windows that are looked up in training text


@dataclass(frozen=True)
class Work:
    """One preparation: what of, and the folder and processes in which it is done."""

    source: Path
    paths: Sequence[Path]  # the files of the source
    recipe: Recipe
    folder: Path
    workers: Workers
    block_bytes: int

    @cached_property
    def parts(self) -> list[list[Piece]]:
        """The parts of the corpus, each read by one worker."""
        return list(plan_parts(self.paths, self.recipe, block_bytes=self.block_bytes))

    def scan(self, numbers: Iterable[int]) -> Iterator[Scan]:
        """Yield what the parts of these numbers hold, and leave their segments in the folder."""
        read = partial(
            scan_part, recipe=self.recipe, folder=self.folder, block_bytes=self.block_bytes
        )
        items = [(number, self.parts[number]) for number in numbers]
        scans = self.workers.each(read, items)
        for _, scan in with_progress("read", items, scans, size=_size_of_part):
            yield scan

    def settle(self, scans: Sequence[Scan]) -> Settled:
        """Return where the text goes; leave the tokenizer and the held-out windows in the folder.

        DataError where a file is no text, or where there is none.
        """
        corpus.raise_problems([problem for scan in scans for problem in scan.problems])
        if all(scan.is_blank for scan in scans):
            raise DataError(f"corpus: {self.source} holds no text; put some into its files")
        settled = self._lay_out([segment for scan in scans for segment in scan.segments])
        write_sealed(self.tokenizer_path, self._make_tokenizer(settled.layout).to_dict())
        release_memory()  # of the search for copies, and of learning merges
        if self.windows_path is None:
            return settled
        held_out = gather_held_out(settled.layout, self.folder, self.workers)
        store(self.windows_path, Windows.of(held_out))
        release_memory()
        return replace(settled, held_out=held_out)

    @property
    def tokenizer_path(self) -> Path:
        """The file of the tokenizer."""
        return self.folder / "tokenizer.json"

    @property
    def windows_path(self) -> Path | None:
        """The file of the held-out windows that are looked up, where they are."""
        return self.folder / "windows" if self.recipe.find_copies else None

    def _lay_out(self, segments: Sequence[Segment]) -> Settled:
        """Return where the text goes, how much is a copy, and what each switch removes."""
        layout = lay_out(segments, NOTHING, self.recipe)
        clean, where = self.recipe.clean, (self.folder, self.workers)
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
            return Settled(layout, figures, {}, {})
        starts, ends = np.concatenate([*found.values()]).T
        removed = near_copies.pieces_of(starts, ends)
        tallies = {name: describe.count_pieces(pieces) for name, pieces in found.items()}
        return Settled(lay_out(segments, removed, self.recipe), figures, tallies, {})

    def _make_tokenizer(self, layout: Layout) -> Tokenizer:
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
            tokenizer = train_from_words(self._count_words(layout), recipe.vocab_size, special)
        else:
            tokenizer = train_tokenizer(recipe.tokenizer, (), vocab_size=recipe.vocab_size)
        check_vocab_size(recipe.vocab_size, tokenizer.size)
        return tokenizer

    def _count_words(self, layout: Layout) -> Counter[bytes]:
        """Return how often each word stands in the training text, or in a share of it."""
        count = partial(count_sections, layout=layout.without_sections(), folder=self.folder)
        counts: Counter[bytes] = Counter()
        sections = [section for section in layout.sections if layout.teaches(section)]
        parts = [sections[at : at + ADDED_UP] for at in range(0, len(sections), ADDED_UP)]
        found = self.workers.each(count, parts)
        for _, words in with_progress("count words", parts, found, size=_size_of_some):
            counts.update(words)
        return counts

    def encode(
        self, layout: Layout, sections: Sequence[Section], *, into: Path | None = None
    ) -> Iterator[list[Encoded]]:
        """Yield what some sections of the layout give the splits, in files in the folder.

        With a folder of prepared data, which takes all sections, tokens go `into` its files where
        their places are known, and segments are removed; else all stays, to be merged later.
        """
        encode = partial(
            encode_section,
            layout=layout.without_sections(),
            tokenizer=self.tokenizer_path,
            folder=self.folder,
            into=into,
            windows=self.windows_path,
        )
        results = self.workers.each(encode, sections)
        for section, found in with_progress("encode", sections, results, size=_size_of_section):
            yield found
            if into:
                self._remove(section, found)

    def _remove(self, section: Section, found: Iterable[Encoded]) -> None:
        paths = {path for each in found for path in (each.text, each.tokens) if path}
        for path in paths | {self.folder / section.segment.name}:
            path.unlink(missing_ok=True)

    def merge(
        self,
        new: Path,
        scans: Sequence[Scan],
        settled: Settled,
        results: Iterable[list[Encoded]],
        *,
        wholes: Mapping[Path, str],
        block_size: int | None,
        passed_over: Mapping[str, int],
    ) -> dict[str, Any]:
        """Fill the folder `new` with what all sections gave, in order; return the description.

        `wholes` are the hashes of source files as far as they are known.
        """
        tokenizer, layout = read_tokenizer(self.tokenizer_path), settled.layout
        write_sealed(new / "tokenizer.json", tokenizer.to_dict())
        shared = Shared(read_windows(self.windows_path)) if self.windows_path else None
        with SplitFiles(new, tokenizer) as files:
            for section in results:
                files.add(section)
                for run in section:
                    if shared and run.split == SPLITS[0]:
                        shared.add(run.met, run.head, run.tail)
        splits, overlap = files.in_order(), shared.shares(settled.held_out) if shared else {}
        described = describe.describe_splits(splits)
        if block_size is not None:
            sizes = {name: part["tokens"] for name, part in described.items()}
            corpus.check_sizes(sizes, block_size, corpus=self.source)
        unseen = describe.find_unseen({name: each.used for name, each in splits.items()})
        # DVC hashes the corpus once the stage is over, and would take it for what was read
        sources = check_sources(
            self.source,
            self.recipe,
            chain.from_iterable(self.parts),
            chain.from_iterable(scan.read for scan in scans),
            wholes=wholes,
            workers=self.workers,
        )
        separator = self.recipe.separator if layout.documents > 1 else ""
        description = {
            "tokenizer": tokenizer.name,
            "vocabulary": tokenizer.size,
            "characters": sum(each.characters for each in splits.values()),
            "tokens": sum(each.tokens for each in splits.values()),
            "documents": layout.documents,
            "separator": {
                "text": separator,
                "tokens": encode_separator(separator, tokenizer).tolist() if separator else [],
            },
            "split": layout.kind,
            "splits": described,
            "sha256": {name: each.text.hexdigest() for name, each in splits.items()},
            "overlap": {"window": LENGTH, **overlap} if shared else None,
            "only_held_out": {name: len(each) for name, each in unseen.items()},
            "sources": [vars(source) for source in sources],
            "passed_over": dict(passed_over),
            **settled.copies,
            "removed": describe.add_tallies(scan.removed for scan in scans) | settled.removed,
            "warnings": [
                *describe.warn_of_size(sources),
                *describe.warn_of_bytes(tokenizer),
                *describe.warn_of_overlap(overlap),
                *describe.warn_of_near_copies(settled.copies)
                * ("near_copies" not in settled.removed),
                *describe.warn_of_unseen(unseen, tokenizer),
            ],
        }
        hashes = {f"{name}.bin": each.content.hexdigest() for name, each in splits.items()}
        description[FILES] = hash_files(new, ["tokenizer.json"]) | hashes
        write_sealed(new / "dataset.json", description)
        return description


def _size_of_part(part: tuple[int, Sequence[Piece]]) -> int:
    return sum(piece.bytes for piece in part[1])


def _size_of_section(section: Section) -> int:
    return section.segment.bytes


def _size_of_some(sections: Sequence[Section]) -> int:
    return sum(map(_size_of_section, sections))
