"""Plain text: a file's bytes as normalised text, or in one line what is wrong and what to do."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError
from nanogpt2.config.yaml12 import printable
from nanogpt2.text.reading.encoding import codec_of, is_nearly_utf8, name_encoding, name_shifts
from nanogpt2.text.reading.formats import name_format
from nanogpt2.text.reading.streams import count_newlines
from nanogpt2.tokens.normal import normalise

NOT_ASCII = bytes(range(128, 256))
SPACES = (b" ", b"\t", b"\n", b"\r")


def read_text(path: str | Path) -> str:
    """Return the normalised text of a file; DataError where it cannot be read or is no text."""
    return decode(files.read_bytes(path), Path(path))


def read_prompt(prompt: str | None, path: str | Path) -> str:
    """Return the normalised `prompt`, or, where it is None, that in a file.

    The last newline of the file does not count.
    """
    return read_text(path).removesuffix("\n") if prompt is None else normalise(prompt)


def decode(content: bytes, path: Path) -> str:
    """Return the normalised text in `content`; DataError, naming `path`, where it is not text."""
    return normalise(decode_as_is(content, path))


def decode_as_is(content: bytes, path: Path) -> str:
    """Return the text in `content`; DataError, naming `path`, where it is not UTF-8 text.

    The error says what it is, as far as its bytes tell, and the command that mends it.
    """
    return Checker(path).check(content)


def cut(content: bytes) -> bytes:
    """Return the start of `content`, the start of a text, that has what its last character has."""
    # what is cut off begins with an ASCII character, so it composes with nothing before it
    return content.rstrip(NOT_ASCII)[:-1]


@dataclass
class Checker:
    """What turns the blocks of one file, in order, into text, and knows where in it they stand.

    A block ends after a newline, or where the file ends. `any_encoding` is that of `open_utf8`,
    which gave the blocks.
    """

    path: Path
    offset: int = 0  # bytes of the file before the next block
    any_encoding: bool = False

    def check(self, block: bytes) -> str:
        """Return the text in the next `block`; DataError, naming the file, where it is not text."""
        if not self.offset and (found := name_format(block)):
            raise DataError(printable(f"{self.path}: {found.name}, not plain text; {found.advice}"))
        try:
            text = block.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(printable(self._explain(block, error.start))) from error
        if "\0" in text:
            raise DataError(printable(self._explain(block, block.index(b"\0"))))
        if name := name_shifts(block):
            line = f"{self.path}: {name} text; save it as UTF-8: {_command(name, self.path)}"
            raise DataError(printable(line))
        self.offset += len(block)
        return text

    def _explain(self, block: bytes, at: int) -> str:
        """Return what is wrong with `block`, which is no text at its byte `at`, and what to do."""
        path, newlines = self.path, block.count(b"\n", 0, at)
        if self.offset:  # counted only where something is wrong
            newlines += count_newlines(path, self.offset, any_encoding=self.any_encoding)
        place = f"line {newlines + 1}, byte {self.offset + at}"
        if is_nearly_utf8(block):
            return (
                f"{path}: not UTF-8 text ({place}), though most of it is; mend or remove that place"
            )
        name = name_encoding(block) if not self.offset or b"\0" not in block else None
        if name is not None and name.startswith("UTF"):
            return f"{path}: {name} text; save it as UTF-8: {_command(name, path)}"
        if block[at] == 0:
            return f"{path}: holds NUL characters ({place}), so it is no plain text; remove it"
        if name is None:
            return (
                f"{path}: not UTF-8 text ({place}); save it as UTF-8, or remove it if it is no text"
            )
        return (
            f"{path}: not UTF-8 text ({place}); save it as UTF-8; as {name} it reads"
            f' "{_word_at(block, at, name)}": {_command(name, path)}'
        )


def _word_at(content: bytes, at: int, name: str) -> str:
    """Return what stands around byte `at` in the encoding `name`, for people to judge."""
    start = max(content.rfind(space, 0, at) for space in SPACES) + 1
    word = content[max(start, at - 40) : at + 40].split()[0]
    return word.decode(codec_of(name), "ignore")[:20]


def _command(name: str, path: Path) -> str:
    """Return the command line that writes the file `path` anew in UTF-8."""
    old, new = shlex.quote(str(path)), shlex.quote(f"{path}.new")
    return f"iconv -f {name} -t UTF-8 {old} > {new} && mv {new} {old}"
