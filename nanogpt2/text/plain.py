"""Plain text: a file's bytes as normalised text, or in one line what is wrong and what to do."""

import shlex
from pathlib import Path

from nanogpt2.base import files
from nanogpt2.base.errors import DataError
from nanogpt2.config.yaml12 import printable
from nanogpt2.text.encoding import codec_of, name_encoding
from nanogpt2.text.formats import name_format
from nanogpt2.tokens.normal import normalise

NOT_ASCII = bytes(range(128, 256))
SPACES = (b" ", b"\t", b"\n", b"\r")
ISO_2022 = {  # shifts to double bytes, which are ASCII too
    b"\x1b$B": "ISO-2022-JP",
    b"\x1b$@": "ISO-2022-JP",
    b"\x1b$(": "ISO-2022-JP",
    b"\x1b$)C": "ISO-2022-KR",
}


def read_text(path: str | Path) -> str:
    """Return the normalised text of a file; DataError where it cannot be read or is no text."""
    return decode(files.read_bytes(path), Path(path))


def read_prompt(prompt: str | None, path: str | Path) -> str:
    """Return the normalised `prompt`, or, where it is None, that in a file.

    The last newline of the file does not count.
    """
    return read_text(path).removesuffix("\n") if prompt is None else normalise(prompt)


def read_start(path: Path, size: int) -> str:
    """Return the normalised text of about the first `size` bytes of a file."""
    try:
        with path.open("rb") as file:
            content = file.read(size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    # what is cut off begins with an ASCII character, so it composes with nothing before it
    whole = content.rstrip(NOT_ASCII)[:-1] if len(content) == size else content
    return decode(whole, path)


def decode(content: bytes, path: Path) -> str:
    """Return the normalised text in `content`; DataError, naming `path`, where it is not text."""
    return normalise(decode_as_is(content, path))


def decode_as_is(content: bytes, path: Path) -> str:
    """Return the text in `content`; DataError, naming `path`, where it is not UTF-8 text.

    The error says what it is, as far as its bytes tell, and the command that mends it.
    """
    if found := name_format(content):
        raise DataError(printable(f"{path}: {found.name}, not plain text; {found.advice}"))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(printable(_explain(content, error.start, path))) from error
    if "\0" in text:
        raise DataError(printable(_explain(content, content.index(b"\0"), path)))
    for name in (name for shift, name in ISO_2022.items() if shift in content):
        line = f"{path}: {name} text; save it as UTF-8: {_command(name, path)}"
        raise DataError(printable(line))
    return text


def _explain(content: bytes, at: int, path: Path) -> str:
    """Return what is wrong with `content`, which is no plain text at byte `at`, and what to do."""
    newline = b"\n"
    place = f"line {content.count(newline, 0, at) + 1}, byte {at}"
    if _is_nearly_utf8(content):
        return f"{path}: not UTF-8 text ({place}), though most of it is; mend or remove that place"
    name = name_encoding(content)
    if name is not None and name.startswith("UTF"):
        return f"{path}: {name} text; save it as UTF-8: {_command(name, path)}"
    if content[at] == 0:
        return f"{path}: holds NUL characters ({place}), so it is no plain text; remove it"
    if name is None:
        return f"{path}: not UTF-8 text ({place}); save it as UTF-8, or remove it if it is no text"
    return (
        f"{path}: not UTF-8 text ({place}); save it as UTF-8; as {name} it reads"
        f' "{_word_at(content, at, name)}": {_command(name, path)}'
    )


def _is_nearly_utf8(content: bytes) -> bool:
    """Return whether characters of several bytes are common in `content`, and errors are rare."""
    text = content.decode("utf-8", "replace")
    beyond, wrong = len(text) - len(text.encode("ascii", "ignore")), text.count("\ufffd")
    return 0 < 5 * wrong <= beyond


def _word_at(content: bytes, at: int, name: str) -> str:
    """Return what stands around byte `at` in the encoding `name`, for people to judge."""
    start = max(content.rfind(space, 0, at) for space in SPACES) + 1
    word = content[max(start, at - 40) : at + 40].split()[0]
    return word.decode(codec_of(name), "ignore")[:20]


def _command(name: str, path: Path) -> str:
    """Return the command line that writes the file `path` anew in UTF-8."""
    old, new = shlex.quote(str(path)), shlex.quote(f"{path}.new")
    return f"iconv -f {name} -t UTF-8 {old} > {new} && mv {new} {old}"
