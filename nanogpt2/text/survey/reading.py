"""Documents of a corpus as they are, in blocks, also what is damaged or in another encoding.

The one place through which the doctor reads a text.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from nanogpt2.base.system.errors import DataError
from nanogpt2.text.reading.corpus import find_text_files, name_in
from nanogpt2.text.reading.encoding import find_codec
from nanogpt2.text.reading.formats import name_format
from nanogpt2.text.reading.records import FIELD, kind_of, read_records
from nanogpt2.text.reading.streams import open_bytes
from nanogpt2.tokens.normal import normalise, normalise_within

BLOCK_BYTES = 1 << 20
LONGEST_LINE = 1 << 23  # characters that wait for the end of their line
UTF8 = "utf-8"


@dataclass
class Document:
    """A document: where it is, and its normalised text in blocks that end where lines do."""

    file: str  # inside the corpus
    record: int = 0  # its number in a file of records, from 1; 0 where it is the whole file
    blocks: Iterator[str] = field(default_factory=lambda: iter(()), repr=False)
    encoding: str = UTF8
    problem: str = ""  # why not all of it is here: what prepare would refuse; known at the end

    @property
    def path(self) -> str:
        """The file, and the number of the record."""
        return f"{self.file}#{self.record}" if self.record else self.file


def documents(corpus: Path, *, text_field: str = FIELD) -> Iterator[Document]:
    """Yield the documents of `corpus` in the order in which prepare reads them.

    A byte that is not in the encoding becomes a half surrogate, U+DC80 to U+DCFF. The blocks of a
    document are read before the next is asked for. Raises DataError where there are none.
    """
    for path in find_text_files(corpus):
        name = name_in(corpus, path)
        if kind_of(path) == "records":
            yield from _records(path, name, text_field)
        else:
            yield _whole(path, name)


def _records(path: Path, name: str, text_field: str) -> Iterator[Document]:
    number = 0
    try:
        for number, text in enumerate(read_records(path, field=text_field), 1):
            yield Document(name, number, iter([normalise(text)]))
    except DataError as error:
        yield Document(name, number + 1, problem=str(error))


def _whole(path: Path, name: str) -> Document:
    document = Document(name)
    document.blocks = _blocks(path, document)
    return document


def _blocks(path: Path, document: Document) -> Iterator[str]:
    try:
        with open_bytes(path) as file:
            yield from _decoded(file, document)
    except DataError as error:
        document.problem = str(error)


def _decoded(file: BinaryIO, document: Document) -> Iterator[str]:
    content = file.read(BLOCK_BYTES)
    if kind := name_format(content):
        document.problem = f"{kind.name}, not plain text; {kind.advice}"
        return
    document.encoding = _encoding_of(content)
    errors = "surrogateescape" if document.encoding == UTF8 else "replace"
    decoder = codecs.getincrementaldecoder(document.encoding)(errors)
    waiting: list[str] = []
    size, form = 0, normalise
    while content:
        text = decoder.decode(content)
        cut = text.rfind("\n") + 1
        if cut or size + len(text) > LONGEST_LINE:
            cut = cut or _cut(text)
            yield form("".join([*waiting, text[:cut]]))
            waiting, size, text, form = [], 0, text[cut:], normalise_within
        waiting.append(text)
        size += len(text)
        content = file.read(BLOCK_BYTES)
    if last := "".join([*waiting, decoder.decode(b"", final=True)]):
        yield form(last)


def _encoding_of(start: bytes) -> str:
    """Return UTF-8 where `start` is in it but for a few bytes, else what it is likeliest in."""
    codec = find_codec(start)
    return UTF8 if codec in ("ascii", None) else str(codec)


def _cut(text: str) -> int:
    """Return a place in a line that has no end: before an ASCII character, which nothing joins."""
    at = len(text) - 1
    while at > 0 and not (text[at].isascii() and text[at - 1] != "\r"):
        at -= 1
    return at
