"""The last pass over a corpus: sections of text become tokens, which are put together by split."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from mmap import ACCESS_READ, ALLOCATIONGRANULARITY, mmap
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from nanogpt2.text.prepare.layout import SPLITS, Layout, Positions, Section, learnt_from, runs_of
from nanogpt2.text.prepare.overlap import EDGE, read_windows
from nanogpt2.text.scan.segments import code_points_of, read_segment
from nanogpt2.tokens.bpe.arrays import TokenArray, token_dtype
from nanogpt2.tokens.bpe.bpe import BytePairTokenizer
from nanogpt2.tokens.bpe.words import count_words
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer, read_tokenizer

NONE = np.empty(0, np.int64)
CHUNK = 2**20  # tokens looked at together: numpy makes eight bytes of each


@dataclass(frozen=True)
class Encoded:
    """What a section gives a split: files with its text and tokens, their sizes, tokens used."""

    split: str
    text: Path  # where all of a segment goes to one split, the segment's own file
    tokens: Path | None  # None where they are in the split's file already
    characters: int
    count: int  # of tokens
    used: npt.NDArray[np.bool_]  # of each token, whether the section has it
    met: Positions  # held-out windows that training text has, by number
    head: str  # its first and last characters, as `Border` takes them
    tail: str


def count_sections(sections: Iterable[Section], *, layout: Layout, folder: Path) -> Counter[bytes]:
    """Return how often each word stands in what sections have for a tokenizer to learn from."""
    counts: Counter[bytes] = Counter()
    for section in sections:
        for piece in learnt_from(section, read_segment(folder, section.segment), layout):
            counts.update(count_words(piece))
    return counts


def encode_section(
    section: Section,
    *,
    layout: Layout,
    tokenizer: Path,
    folder: Path,
    into: Path | None,
    windows: Path | None,
) -> list[Encoded]:
    """Write text and tokens of a section into files beside its segment; return what they hold.

    `tokenizer` is a tokenizer's file, `folder` that of the segments, `into` that of the splits'
    files, if tokens are written there once their places are known, and `windows` the file of the
    held-out windows, which are looked up in training text.
    """
    known = cached_tokenizer(tokenizer)
    places = tokens_before(section, layout, known) if into else None
    whole = read_segment(folder, section.segment)
    path = folder / section.segment.name
    found = []
    for run in runs_of(section, whole, layout):
        text = run.text(layout.separator)
        tokens = encode_pieces(run.pieces, text, layout.separator, known)
        own, points = path, section.segment.points
        if run.pieces != [whole]:
            own, content = Path(f"{path}-{run.split}.text"), text.encode("utf-8")
            own.write_bytes(content)
            points = code_points_of(text, content)
        used = find_used(tokens, points, known)
        ordered = tokens.astype(tokens.dtype.newbyteorder("<"), copy=False)
        encoded = None if places else Path(f"{path}-{run.split}.bin")
        if encoded:
            ordered.tofile(encoded)
        elif into and places:
            _write_at(into / f"{run.split}.bin", ordered, places[run.split])
        met = NONE
        if windows is not None and run.split == SPLITS[0]:
            met = read_windows(windows).look_up(text)
        edges = text[:EDGE], text[-EDGE:]
        sizes = len(text), len(tokens)
        found.append(Encoded(run.split, own, encoded, *sizes, used, met, *edges))
    return found


def tokens_before(section: Section, layout: Layout, tokenizer: Tokenizer) -> dict[str, int] | None:
    """Return how many tokens of each split are in earlier sections, where that can be known."""
    if isinstance(tokenizer, CharTokenizer) or (
        isinstance(tokenizer, ByteTokenizer) and layout.is_ascii
    ):
        return layout.characters_before(section)
    return None


def _write_at(path: Path, tokens: npt.NDArray[Any], place: int) -> None:
    """Write into a file, which others write into too, from the token number `place` on."""
    path.touch()
    with path.open("r+b") as file:
        file.seek(place * tokens.itemsize)
        tokens.tofile(file)


@lru_cache(1)
def cached_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer in a file, which a worker reads once."""
    return read_tokenizer(path)


def find_used(
    tokens: TokenArray, points: npt.NDArray[np.uint32], tokenizer: Tokenizer
) -> npt.NDArray[np.bool_]:
    """Return of each token whether it is among `tokens`, those of a text with these code points."""
    used = np.zeros(tokenizer.size, np.bool_)
    if isinstance(tokenizer, CharTokenizer | ByteTokenizer):  # its characters tell it sooner
        used[tokenizer.encode("".join(map(chr, points)))] = True
        return used
    for start in range(0, len(tokens), CHUNK):
        used[tokens[start : start + CHUNK]] = True
    return used


def encode_pieces(
    pieces: Iterable[str | None], text: str, separator: str, tokenizer: Tokenizer
) -> TokenArray:
    """Return the tokens of `text`, which `pieces` make up: those of each document by itself."""
    if isinstance(tokenizer, CharTokenizer | ByteTokenizer):  # no token is of two characters
        return tokenizer.encode(text)
    between = encode_separator(separator, tokenizer)
    arrays = [between if piece is None else tokenizer.encode(piece) for piece in pieces]
    return cast(TokenArray, np.concatenate(arrays))


def encode_separator(separator: str, tokenizer: Tokenizer) -> TokenArray:
    """Return the tokens of what stands between documents: one, where it is a special token."""
    if isinstance(tokenizer, BytePairTokenizer) and separator in tokenizer.special:
        number = tokenizer.vocabulary.index(separator)
        return cast(TokenArray, np.array([number], token_dtype(tokenizer.size)))
    return tokenizer.encode(separator)


@contextmanager
def mapped(path: Path, start: int, size: int) -> Iterator[memoryview]:
    """Give `size` bytes of a file from `start` on, which are not copied."""
    begin = start - start % ALLOCATIONGRANULARITY
    if not size:  # which cannot be mapped
        yield memoryview(b"")
        return
    length = start - begin + size
    with (
        path.open("rb") as file,
        mmap(file.fileno(), length, access=ACCESS_READ, offset=begin) as content,
        memoryview(content) as whole,
        whole[start - begin :] as part,
    ):
        yield part


@dataclass
class SplitFile:
    """A split's token file as it grows, and what it holds so far."""

    path: Path
    file: BinaryIO
    used: npt.NDArray[np.bool_]
    characters: int = 0
    bytes: int = 0
    tokens: int = 0
    text: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    content: "hashlib._Hash" = field(default_factory=hashlib.sha256)

    def add(self, found: Encoded, itemsize: int, threads: Executor) -> None:
        """Append what a section gave; hashes are made in `threads` meanwhile."""
        path, start = found.tokens or self.path, 0 if found.tokens else self.tokens * itemsize
        with (
            mapped(found.text, 0, found.text.stat().st_size) as text,
            mapped(path, start, found.count * itemsize) as tokens,
        ):
            hashing = [threads.submit(self.text.update, text)]
            hashing.append(threads.submit(self.content.update, tokens))
            if found.tokens:
                self.file.write(tokens)
            self.characters += found.characters
            self.bytes += len(text)
            self.tokens += found.count
            self.used |= found.used
            wait(hashing)


class SplitFiles(ExitStack):
    """The token files of all splits, written into a folder; a context that closes them."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.folder, self.size = folder, tokenizer.size
        self.splits: dict[str, SplitFile] = {}
        self.threads = self.enter_context(ThreadPoolExecutor(2))

    def add(self, section: Iterable[Encoded]) -> None:
        """Append what a section gave the splits."""
        for found in section:
            if found.split not in self.splits:
                path = Path(self.folder, f"{found.split}.bin")
                file = self.enter_context(path.open("ab"))
                self.splits[found.split] = SplitFile(path, file, np.zeros(self.size, np.bool_))
            itemsize = np.dtype(token_dtype(self.size)).itemsize
            self.splits[found.split].add(found, itemsize, self.threads)

    def in_order(self) -> dict[str, SplitFile]:
        """Return the splits, train first."""
        return {name: self.splits[name] for name in SPLITS if name in self.splits}
