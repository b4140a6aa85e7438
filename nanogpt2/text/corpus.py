"""The corpus: .txt files read in a fixed order and brought to one form."""

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nanogpt2.base import files
from nanogpt2.base.errors import DataError

ALLOWED = "a .txt file, or a folder of them, that you may read"
NOT_ASCII = bytes(range(128, 256))
SMALL_CORPUS_BYTES = 1_000_000  # below this the training guide advises against training


@dataclass(frozen=True)
class Source:
    """One file of a corpus: its path inside the corpus, its size in bytes and its SHA-256."""

    path: str
    bytes: int
    sha256: str


def find_text_files(corpus: Path) -> list[Path]:
    """Return the .txt files of `corpus`, a file or a folder of any depth, sorted by path.

    Raises DataError where there are none, where one cannot be read, and at a link to a folder,
    which DVC does not follow.
    """
    corpus = Path(corpus)
    mode = _mode(corpus)
    if not stat.S_ISDIR(mode):
        _check_file(corpus, mode)
        return [corpus]
    found = sorted(_walk(corpus), key=lambda path: path.relative_to(corpus).as_posix())
    if not found:
        raise DataError(f"corpus: {corpus} holds no .txt file; put your text there as .txt")
    for path in found:
        _check_file(path, _mode(path))
    return found


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, onerror=_refuse):
        for link in sorted(path for name in folders if (path := Path(root, name)).is_symlink()):
            raise DataError(
                f"corpus: {link} is a link to a folder, where DVC would not see new text;"
                " allowed: folders and files, and links to files"
            )
        yield from (Path(root, name) for name in names if name.lower().endswith(".txt"))


def _refuse(error: OSError) -> None:
    raise DataError(f"corpus: {error.filename} cannot be read: {error.strerror}") from error


def _mode(path: Path) -> int:
    """Return the kind of file that `path` is, or leads to."""
    try:
        return path.stat().st_mode
    except FileNotFoundError as error:
        problem = "is a link that leads nowhere" if path.is_symlink() else "does not exist"
        raise DataError(f"corpus: {path} {problem}; allowed: {ALLOWED}") from error
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise DataError(f"corpus: {path} {problem}; allowed: {ALLOWED}") from error
    except ValueError as error:
        raise DataError(f"corpus: {path} is no file name; allowed: {ALLOWED}") from error


def _check_file(path: Path, mode: int) -> None:
    """Raise DataError where `path` is a device or a pipe, or cannot be read here or by DVC."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(f"corpus: {path}: the name is not UTF-8; rename the file") from error
    if not stat.S_ISREG(mode):
        raise DataError(f"corpus: {path} is no regular file; allowed: {ALLOWED}")
    try:
        path.open("rb").close()
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise DataError(f"corpus: {path} {problem}; allowed: {ALLOWED}") from error


def normalise(text: str) -> str:
    r"""Return `text` with every newline as `\n`, in Unicode's composed form NFC."""
    text = re.sub("\r\n|[\r\x85\u2028\u2029]", "\n", text)
    return unicodedata.normalize("NFC", text)


def read_file(path: Path) -> tuple[str, bytes]:
    """Return the normalised text of one file, and its bytes; DataError where it is not text."""
    content = files.read_bytes(path)
    return decode(content, path), content


def read_start(path: Path, size: int) -> str:
    """Return the normalised text of about the first `size` bytes of one file."""
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
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: UTF-16 text; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: not UTF-8 text (line {line}, byte {error.start}); save it as UTF-8"
        ) from error
    if "\0" in text:
        raise DataError(f"{path}: holds NUL characters, so it is no plain text; remove it")
    return normalise(text)


def read_corpus(corpus: Path) -> tuple[str, list[Source]]:
    r"""Return the whole text of `corpus`, its files joined by `\n`, and what was read."""
    texts, sources = [], []
    root = Path(corpus) if Path(corpus).is_dir() else Path(corpus).parent
    for path in find_text_files(corpus):
        text, content = read_file(path)
        texts.append(text)
        name = path.relative_to(root).as_posix()
        sources.append(Source(name, len(content), files.sha256(content)))
    text = "\n".join(texts)
    if not text.strip():
        raise DataError(f"corpus: {corpus} holds no text; put some into its .txt files")
    return text, sources


def split(text: str, *, val_fraction: float, test_fraction: float) -> dict[str, str]:
    """Return the train, val and test parts of `text`: contiguous, in this order, by characters.

    Windows drawn at random would share text between the parts. A test part of fraction 0 is left
    out; DataError where a part comes out empty.
    """
    n_test = int(len(text) * test_fraction)
    n_val = int(len(text) * val_fraction)
    n_train = len(text) - n_val - n_test
    parts = {"train": text[:n_train], "val": text[n_train : n_train + n_val]}
    if test_fraction:
        parts["test"] = text[n_train + n_val :]
    for name, part in parts.items():
        if not part:
            raise DataError(
                f"corpus: {len(text)} characters leave none for the {name} split; use more text"
            )
    return parts
