"""The corpus: .txt files read in a fixed order and brought to one form."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from nanogpt2.base import files
from nanogpt2.base.errors import DataError
from nanogpt2.config.yaml12 import printable
from nanogpt2.text.plain import decode

Item = TypeVar("Item")
Result = TypeVar("Result")

ALLOWED = "a .txt file, or a folder of them, that you may read"
MOST_NAMED = 10  # files that an error names; how many more there are stands below them
KINDS_NAMED = 5
# What editors and systems keep beside texts: what DVC does not see, by itself or by .dvcignore.
COMPANIONS = (
    *(".git", ".hg", ".dvc"),
    *("*~", ".*.sw?", "*.orig", ".DS_Store", "._*", ".#*", "~$*", ".trashed-*", ".pending-*"),
    *(".ipynb_checkpoints", "__pycache__", "__MACOSX", ".AppleDouble", "@eaDir"),
    *(".Trash*", "$RECYCLE.BIN", "#recycle", "lost+found", ".stversions", ".dropbox.cache"),
)
SMALL_CORPUS_BYTES = 1_000_000  # below this the training guide advises against training


@dataclass(frozen=True)
class Source:
    """One file of a corpus: its path inside the corpus, its size in bytes and its SHA-256."""

    path: str
    bytes: int
    sha256: str


def find_text_files(corpus: str | Path) -> list[Path]:
    """Return the .txt files of `corpus`, a file or a folder of any depth, sorted by path.

    Raises DataError where there are none, where one cannot be read, and at a link to a folder,
    which DVC does not follow.
    """
    corpus = Path(corpus)
    mode = _mode(corpus)
    if not stat.S_ISDIR(mode):
        _check_file(corpus, mode)
        return [corpus]
    found = list(filter(is_text, _walk(corpus)))
    if not found:
        others = list_kinds(count_passed_over(corpus))
        problem = f"corpus: {corpus} holds no .txt file; put your text there as .txt"
        raise DataError(printable(problem + f"; it holds {others}" * bool(others)))
    of_each(lambda path: _check_file(path, _mode(path)), found)
    return found


def is_text(path: Path) -> bool:
    """Return whether a file is read: by the ending of its name alone."""
    return path.name.lower().endswith(".txt")


def is_plain(path: Path) -> bool:
    """Return whether a file is plain text, of which any span can be read by itself."""
    return path.name.lower().endswith(".txt")


def count_passed_over(corpus: Path, *, but: Path | None = None) -> dict[str, int]:
    """Return how many files of a folder are not read, by kind, such as .md.

    Companions do not count, nor do the files of the folder `but`, such as an output.
    """
    paths = [path for path in _walk(Path(corpus)) if not is_text(path)]
    if but is not None:
        paths = [path for path in paths if but.absolute() not in path.absolute().parents]
    return dict(sorted(Counter(map(_kind, paths)).items()))


def list_kinds(kinds: Mapping[str, int]) -> str:
    """Return in words how many files of each kind there are, the most first."""
    common = sorted(kinds, key=lambda kind: -kinds[kind])
    parts = [f"{kinds[kind]} {kind}" for kind in common[:KINDS_NAMED]]
    others = sum(kinds[kind] for kind in common[KINDS_NAMED:])
    return ", ".join(parts + [f"{others} of other kinds"] * (others > 0))


def _kind(path: Path) -> str:
    """Return the ending of a file's name; of one such as .gitignore all of it."""
    hidden = path.name if path.name.startswith(".") else "without ending"
    return printable(path.suffix.lower() or hidden)


def of_each(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Return what `function` gives for each; DataError with a line for each for which it raised.

    Ten lines at most, and how many more there are.
    """
    results, problems = [], []
    for item in items:
        try:
            results.append(function(item))
        except DataError as error:
            problems.append(str(error))
    raise_problems(problems)
    return results


def raise_problems(problems: Sequence[str]) -> None:
    """Raise DataError with the first ten lines of `problems`, one a file, where there are any."""
    if problems:
        more = len(problems) - MOST_NAMED
        shown = [*problems[:MOST_NAMED], *([f"and {more} more files"] if more > 0 else [])]
        raise DataError("\n".join(shown))


def _walk(corpus: Path) -> list[Path]:
    """Return the files of a folder by path, less `COMPANIONS` and what is in them."""
    if not corpus.is_dir():
        return []
    return sorted(_files_in(corpus), key=lambda path: path.relative_to(corpus).as_posix())


def _files_in(corpus: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(corpus, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not is_companion(name))
        for link in (path for name in folders if (path := Path(root, name)).is_symlink()):
            problem = f"corpus: {link} is a link to a folder, where DVC would not see new text"
            raise DataError(printable(f"{problem}; allowed: folders and files, and links to files"))
        yield from (Path(root, name) for name in names if not is_companion(name))


def is_companion(name: str) -> bool:
    """Return whether a file or folder is what an editor or a system keeps beside texts."""
    return any(fnmatchcase(name, pattern) for pattern in COMPANIONS)


def count_companions(corpus: Path) -> int:
    """Return how many .txt files of a folder are passed over because they are companions."""
    paths = [Path(root, name) for root, _, names in os.walk(corpus) for name in names]
    ours = [path for path in paths if any(map(is_companion, path.relative_to(corpus).parts))]
    return sum(map(is_text, ours))


def _refuse(error: OSError) -> None:
    raise DataError(printable(f"corpus: {error.filename} cannot be read: {error.strerror}"))


def _mode(path: Path) -> int:
    """Return the kind of file that `path` is, or leads to."""
    try:
        return path.stat().st_mode
    except FileNotFoundError as error:
        problem = "is a link that leads nowhere" if path.is_symlink() else "does not exist"
        raise _unusable(path, problem) from error
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _unusable(path, "is no file name") from error


def _check_file(path: Path, mode: int) -> None:
    """Raise DataError where `path` is a device or a pipe, or cannot be read here or by DVC."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:
        problem = f"corpus: {path}: the name is not UTF-8; rename the file"
        raise DataError(printable(problem)) from error
    if not stat.S_ISREG(mode):
        raise _unusable(path, "is no regular file")
    try:
        path.open("rb").close()
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from error


def _unusable(path: Path, problem: str) -> DataError:
    return DataError(printable(f"corpus: {path} {problem}; allowed: {ALLOWED}"))


def read_file(path: Path) -> tuple[str, bytes]:
    """Return the normalised text of one file, and its bytes; DataError where it is not text."""
    content = files.read_bytes(path)
    return decode(content, path), content


def read_corpus(corpus: str | Path) -> tuple[str, list[Source]]:
    r"""Return the whole text of `corpus`, its files joined by `\n`, and what was read.

    Raises DataError with a line for each file that is not text.
    """

    def read(path: Path) -> tuple[str, Source]:
        text, content = read_file(path)
        return text, _describe(path, corpus, content)

    found = of_each(read, find_text_files(corpus))
    text = "\n".join(text for text, _ in found)
    if not text.strip():
        raise DataError(f"corpus: {corpus} holds no text; put some into its .txt files")
    return text, [source for _, source in found]


def _describe(path: Path, corpus: str | Path, content: bytes) -> Source:
    return Source(name_in(corpus, path), len(content), files.sha256(content))


def name_in(corpus: str | Path, path: Path) -> str:
    """Return the path of a file inside its corpus, as descriptions have it."""
    root = Path(corpus) if Path(corpus).is_dir() else Path(corpus).parent
    return path.relative_to(root).as_posix()


def split(text: str, *, val_fraction: float, test_fraction: float) -> dict[str, str]:
    """Return the train, val and test parts of `text`: contiguous, in this order, by characters.

    Windows drawn at random would share text between the parts. A test part of fraction 0 is left
    out; DataError where a part comes out empty.
    """
    sizes = split_sizes(len(text), val_fraction=val_fraction, test_fraction=test_fraction)
    parts, start = {}, 0
    for name, size in sizes.items():
        parts[name] = text[start : start + size]
        start += size
    return parts


def split_sizes(n_characters: int, *, val_fraction: float, test_fraction: float) -> dict[str, int]:
    """Return the characters of each part of a text; DataError where a part comes out empty."""
    n_test, n_val = int(n_characters * test_fraction), int(n_characters * val_fraction)
    sizes = {"train": n_characters - n_val - n_test, "val": n_val}
    if test_fraction:
        sizes["test"] = n_test
    for name, size in sizes.items():
        if not size:
            raise DataError(
                f"corpus: {n_characters} characters leave none for the {name} split; use more text"
            )
    return sizes


def check_sizes(sizes: Mapping[str, int], block_size: int, *, corpus: Path) -> None:
    """Raise DataError where a split of so many tokens is too short to be trained on or evaluated.

    Training takes windows of block_size + 1 tokens, and evaluation predicts all but the first.
    """
    for name, tokens in sizes.items():
        needed = 2 if name == "test" else block_size + 1
        if tokens < needed:
            raise DataError(
                f"corpus: {corpus} gives the {name} split {tokens} tokens; allowed: at least"
                f" {needed} with block_size {block_size}; use more text, other fractions or a"
                " smaller block_size"
            )
