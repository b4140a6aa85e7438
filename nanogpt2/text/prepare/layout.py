"""Which text goes into which split, once all of the corpus is known.

The text of a corpus is its documents, less what is removed, with the separator between them. Splits
are contiguous pieces of it, or whole documents, by a hash of each.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import numpy as np
import numpy.typing as npt

from nanogpt2.text.reading.corpus import split_sizes
from nanogpt2.text.scan.recipe import Recipe
from nanogpt2.text.scan.segments import Segment

MANY_DOCUMENTS = 100  # from here on whole documents are held out
SPLITS = ("train", "val", "test")
SAMPLE_BYTES = 50_000_000  # of text from which a tokenizer learns: more changes little
SAMPLE_PIECE = 1_000_000  # characters of contiguous splits that are learnt from together
SHUFFLE = np.uint64(0x9E3779B97F4A7C15)  # makes of a document's hash another

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Section:
    """A segment's place in the whole: what of it is kept, and where it goes.

    `removed` are (N, 2) pieces of the segment's characters, sorted and apart; `starts` the places
    at which documents that are kept begin, `splits` theirs (numbers in SPLITS), `entering` that of
    the document that goes on from the segment before. `offset` is the place of the section's first
    character in the whole text, and `begun` the splits that have a document already; `before` are
    the characters of each split in earlier sections, where whole documents are held out.
    """

    segment: Segment
    removed: Positions
    starts: Positions
    splits: npt.NDArray[np.int8]
    entering: int
    offset: int
    begun: tuple[bool, ...]
    before: tuple[int, ...]
    sampled: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Places:
    """Where each document of a corpus begins, its split, and what lies in between."""

    starts: Positions  # in characters of all segments, one after the other
    splits: npt.NDArray[np.int8]
    size: int
    separator: int  # characters
    ends: list[int] | None  # as `Layout` has them

    def split_at(self, places: Positions) -> Positions:
        """Return the split (a number in SPLITS) in which each of `places` is."""
        before = np.searchsorted(self.starts, places, side="right") - 1
        if self.ends is None:
            return self.splits[before].astype(np.int64)
        return np.searchsorted(self.ends, places + before * self.separator, side="right")

    def count(self, pieces: Positions) -> list[int]:
        """Return how many characters of each split lie in `pieces` (N, 2), which are apart."""
        if self.ends is None:
            lengths = np.diff(np.append(self.starts, self.size))
            which = np.searchsorted(self.starts, pieces, side="right") - 1
            inside = pieces - self.starts[which]
            counts = []
            for split in range(len(SPLITS)):
                mine = self.splits == split
                before = np.concatenate([[0], np.cumsum(lengths * mine)])
                counts.append(before[which] + inside * mine[which])
        else:
            before = np.searchsorted(self.starts, pieces, side="right") - 1
            places = pieces + before * self.separator
            bounds = zip([0, *self.ends], self.ends, strict=False)
            counts = [np.clip(places, first, last) for first, last in bounds]
        return [int((count[:, 1] - count[:, 0]).sum()) for count in counts]


@dataclass(frozen=True)
class Layout:
    """The sections of a corpus, and, where splits are contiguous, where each split ends."""

    sections: list[Section]
    separator: str
    is_ascii: bool  # all text, and the separator
    documents: int
    ends: list[int] | None  # by SPLITS, in characters of the whole text
    share: float  # of the text, from which a tokenizer learns
    sizes: list[int]  # characters of each split, where documents are held out without separators

    def places(self) -> Places:
        """Return where documents begin and go, in a corpus of which nothing is removed."""
        sizes = [section.segment.characters for section in self.sections]
        at = [0, *accumulate(sizes)]
        starts = [s.starts + start for s, start in zip(self.sections, at, strict=False)]
        codes = np.concatenate([section.splits for section in self.sections])
        return Places(np.concatenate(starts), codes, at[-1], len(self.separator), self.ends)

    def has_held_out(self, section: Section) -> bool:
        """Return whether some of a section may be held out."""
        if self.ends is None:
            return bool(section.entering or section.splits.any())
        return section.offset + self._most_characters(section) > self.ends[0]

    def _most_characters(self, section: Section) -> int:
        """Return how many characters a section has at most, with what separates its documents."""
        return section.segment.characters + (len(section.starts) + 1) * len(self.separator)

    @property
    def step(self) -> int:
        """Characters from one piece of contiguous splits that is learnt from to the next."""
        return max(SAMPLE_PIECE, round(SAMPLE_PIECE / self.share))

    def teaches(self, section: Section) -> bool:
        """Return whether a tokenizer may learn from some of a section."""
        if self.ends is None:
            return bool(section.sampled.any())
        place = section.offset % self.step
        return place < SAMPLE_PIECE or place + self._most_characters(section) >= self.step

    def characters_before(self, section: Section) -> dict[str, int] | None:
        """Return how many characters of each split are in earlier sections.

        None where a separator of several characters may end beyond a split's end.
        """
        if self.ends is None:
            return dict(zip(SPLITS, section.before, strict=True))
        if self.documents > 1 and len(self.separator) > 1:
            return None
        bounds = zip([0, *self.ends], self.ends, strict=False)
        counts = [min(max(section.offset, first), last) - first for first, last in bounds]
        return dict(zip(SPLITS, counts, strict=False))

    def without_sections(self) -> "Layout":
        """Return the rest, which each worker needs."""
        return replace(self, sections=[])

    @property
    def kind(self) -> str:
        """How the held-out parts are chosen, as `split` has it."""
        return "documents" if self.ends is None else "contiguous"


@dataclass(frozen=True)
class Run:
    """Text of one split in a section: pieces of documents, None where a separator stands."""

    split: str
    pieces: list[str | None]

    def text(self, separator: str) -> str:
        """Return all of it."""
        return "".join(separator if piece is None else piece for piece in self.pieces)


def lay_out(segments: Sequence[Segment], removed: Positions, recipe: Recipe) -> Layout:
    """Return where the text of `segments` goes, less `removed` (N, 2), in characters of them all.

    DataError where contiguous splits come out empty.
    """
    places = [0, *accumulate(segment.characters for segment in segments)]
    share = min(1.0, SAMPLE_BYTES / sum(segment.bytes for segment in segments))
    sections, offset, entering, goes_on = [], 0, 0, False
    begun, before, documents = [False] * len(SPLITS), [0] * len(SPLITS), 0
    characters, last_ends = np.zeros(len(SPLITS), np.int64), _ends_of_last(segments, places)
    for segment, start, after in zip(segments, places, last_ends, strict=False):
        end, borders = start + segment.characters, np.append(segment.starts + start, after)
        left = np.diff(borders - _covered(borders, removed))  # of each document that begins here
        kept, codes = left > 0, choose_splits(segment.keys, recipe)
        sampled = _as_shares(segment.keys * SHUFFLE) < share
        starts, own = segment.starts if kept.all() else segment.starts[kept], codes[kept]
        pieces = np.clip(removed[_touching(removed, start, end)], start, end) - start
        sections.append(
            Section(
                *(segment, pieces, starts, own, entering, offset),
                *(tuple(begun), tuple(before)),
                np.append(goes_on, sampled[kept]),
            )
        )
        documents += len(own)
        n_separators = max(0, len(own) - (not any(begun)))
        offset += end - start - int((pieces[:, 1] - pieces[:, 0]).sum())
        offset += n_separators * len(recipe.separator)
        borders = np.concatenate([[start], starts + start, [end]])
        lengths = np.diff(borders - _covered(borders, removed))
        for code, length in zip([entering, *own.tolist()], lengths.tolist(), strict=True):
            before[code] += length
        if len(codes):
            entering, goes_on = int(codes[-1]), bool(sampled[-1])
        for code in own.tolist():
            before[code] += len(recipe.separator) * begun[code]
            begun[code] = True
        np.add.at(characters, codes, left)
    limits = None if holds_out_documents(documents, recipe) else _contiguous(offset, recipe)
    sizes = characters.tolist() if limits is None else np.diff([0, *limits]).tolist()
    is_ascii = recipe.separator.isascii() and all(s.bytes == s.characters for s in segments)
    return Layout(sections, recipe.separator, is_ascii, documents, limits, share, sizes)


def _ends_of_last(segments: Sequence[Segment], places: Sequence[int]) -> list[int]:
    """Return where the last document of each segment ends, which may be in a later one."""
    after = [places[-1]]
    for segment, start in zip(reversed(segments), reversed(places[:-1]), strict=True):
        after.append(start + int(segment.starts[0]) if len(segment.starts) else after[-1])
    return after[-2::-1]


def holds_out_documents(count: int, recipe: Recipe) -> bool:
    """Return whether whole documents are held out, of so many, rather than contiguous pieces."""
    return recipe.split == "documents" or (recipe.split == "auto" and count >= MANY_DOCUMENTS)


def choose_splits(keys: npt.NDArray[np.uint64], recipe: Recipe) -> npt.NDArray[np.int8]:
    """Return the split (a number in SPLITS) of each document, by its key alone."""
    shares = _as_shares(keys)
    held_out = (shares < recipe.val_fraction + recipe.test_fraction).astype(np.int8)
    return held_out + (shares < recipe.test_fraction)


def _as_shares(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Return hashes as numbers in [0, 1)."""
    return np.asarray((keys >> np.uint64(11)) / 2.0**53, np.float64)


def _contiguous(n_characters: int, recipe: Recipe) -> list[int]:
    sizes = split_sizes(
        n_characters, val_fraction=recipe.val_fraction, test_fraction=recipe.test_fraction
    )
    return list(accumulate(sizes.values()))


def _covered(places: Positions, removed: Positions) -> Positions:
    """Return how many characters before each of the sorted `places` are removed."""
    if not len(removed):
        return np.zeros(len(places), np.int64)
    sums = np.concatenate([[0], np.cumsum(removed[:, 1] - removed[:, 0])])
    whole = np.searchsorted(removed[:, 0], places)  # pieces that begin before a place
    over = np.maximum(0, removed[whole - 1, 1] - places) * (whole > 0)
    return np.asarray(sums[whole] - over, np.int64)


def _touching(removed: Positions, start: int, end: int) -> slice:
    first = int(np.searchsorted(removed[:, 1], start, side="right"))
    return slice(first, int(np.searchsorted(removed[:, 0], end)))


# --- A section's text ---


def runs_of(section: Section, text: str, layout: Layout) -> Iterator[Run]:
    """Yield the text of a section, whose segment has `text`, split by split, in order."""
    if layout.ends is None:
        yield from _by_document(section, text)
    else:
        yield from _by_place(section, text, layout.ends, layout.separator)


def _by_document(section: Section, text: str) -> Iterator[Run]:
    begun, found = list(section.begun), dict[int, list[str | None]]()
    for begins, code, fragment in _fragments(section, text):
        pieces = found.setdefault(code, [])
        if begins:
            pieces += [None] * begun[code]
            begun[code] = True
        pieces.append(fragment)
    yield from (Run(SPLITS[code], found[code]) for code in sorted(found))


def _by_place(section: Section, text: str, ends: Sequence[int], separator: str) -> Iterator[Run]:
    """A separator that begins before the end of a split is wholly in it."""
    place, split = section.offset, bisect_right(ends, section.offset)
    pieces: list[str | None] = []
    is_first = not any(section.begun)
    for begins, _, fragment in _fragments(section, text):
        if begins and not is_first:
            pieces.append(None)
            place += len(separator)
        is_first = is_first and not begins
        while fragment:
            if place >= ends[split]:
                if pieces:
                    yield Run(SPLITS[split], pieces)
                pieces, split = [], split + 1
            room = ends[split] - place
            part, fragment = fragment[:room], fragment[room:]
            pieces.append(part)
            place += len(part)
    if pieces:
        yield Run(SPLITS[min(split, len(ends) - 1)], pieces)


def _fragments(section: Section, text: str) -> Iterator[tuple[bool, int, str]]:
    """Yield what is kept of each document: whether it begins here, its split, and the text.

    What stands before and after a removed piece comes apart, as no token is of both.
    """
    places = [0, *section.starts.tolist(), len(text)]
    codes = [section.entering, *section.splits.tolist()]
    for number, (start, end) in enumerate(pairwise(places)):
        begins = number > 0
        for first, last in _kept(start, end, section.removed):
            yield begins, codes[number], text[first:last]
            begins = False
        if begins:
            yield True, codes[number], ""


def _kept(start: int, end: int, removed: Positions) -> Iterator[tuple[int, int]]:
    """Yield what is left of start .. end without the `removed` pieces."""
    for first, last in removed[_touching(removed, start, end)].tolist() if len(removed) else ():
        if start < first:
            yield start, first
        start = last
    if start < end:
        yield start, end


# --- Text that a tokenizer learns from ---


def learnt_from(section: Section, text: str, layout: Layout) -> Iterator[str]:
    """Yield what a section has of the training text from which a tokenizer learns.

    That is all of it, or, of a large text, a share: whole documents, or pieces of contiguous splits
    at even distances, whatever the segments.
    """
    if layout.ends is None:
        number = -1
        for begins, code, fragment in _fragments(section, text):
            number += begins
            if code == 0 and section.sampled[number + 1]:
                yield fragment
        return
    place, step = section.offset, layout.step
    for run in _by_place(section, text, layout.ends, layout.separator):
        for piece in run.pieces if run.split == SPLITS[0] else ():
            size = len(layout.separator if piece is None else piece)
            if piece is not None:
                first, last = place // step, (place + size) // step
                for start in range(first * step - place, last * step - place + 1, step):
                    yield piece[max(0, start) : max(0, start + SAMPLE_PIECE)]
            place += size
