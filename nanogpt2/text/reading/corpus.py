"""The corpus: which files are read, in which order, and all of a small one as one text."""

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import translate
from itertools import takewhile
from pathlib import Path, PurePath
from typing import TypeVar

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError
from nanogpt2.config.yaml12 import printable
from nanogpt2.text.reading import plain
from nanogpt2.text.reading.records import FIELD, kind_of, read_records
from nanogpt2.text.reading.streams import open_utf8, packing
from nanogpt2.tokens.normal import normalise

Item = TypeVar("Item")
Result = TypeVar("Result")

KINDS = (".txt", ".jsonl", ".parquet")
PACKED = (".txt.gz", ".txt.zst", ".jsonl.gz", ".jsonl.zst")
ALLOWED = "a .txt file, or a folder of them, that you may read; also .jsonl, .parquet, .gz, .zst"
MOST_NAMED = 10  # files that an error names; how many more there are stands below them
KINDS_NAMED = 5
DIGITS = re.compile("([0-9]+)")
# What editors and systems keep beside texts: what DVC does not see, by itself or by .dvcignore.
COMPANIONS = (
    *(".git", ".hg", ".dvc"),
    *("*~", ".*.sw?", "*.orig", ".DS_Store", "._*", ".#*", "~$*", ".trashed-*", ".pending-*"),
    *(".ipynb_checkpoints", "__pycache__", "__MACOSX", ".AppleDouble", "@eaDir"),
    *(".Trash*", "$RECYCLE.BIN", "#recycle", "lost+found", ".stversions", ".dropbox.cache"),
)
IS_COMPANION = re.compile("|".join(map(translate, COMPANIONS))).match
SMALL_CORPUS_BYTES = 1_000_000  # below this the training guide advises against training


@dataclass(frozen=True)
class Source:
    """One file of a corpus: its path inside the corpus, its size in bytes and its SHA-256."""

    path: str
    bytes: int
    sha256: str


def find_text_files(corpus: str | Path) -> list[Path]:
    """Return the files of `corpus` that are read, in their natural order (`natural_order`).

    `corpus` is a file, a folder of any depth or, where it is neither, a glob such as
    `data/*/part-*.txt`. Raises DataError where there are none, where one cannot be read, and at a
    link to a folder, which DVC does not follow.
    """
    corpus = Path(corpus)
    if not is_glob(corpus):
        mode = _mode(corpus)
        if not stat.S_ISDIR(mode):
            _check_file(corpus, mode)
            return [corpus]
    found = list(filter(is_text, _walk(corpus)))
    if not found:
        others = list_kinds(count_passed_over(corpus))
        verb = "matches" if is_glob(corpus) else "holds"
        problem = f"{verb} no .txt file, nor one of {', '.join((*KINDS[1:], *PACKED))}"
        advice = f"put your text there as .txt{f'; it {verb} {others}' * bool(others)}"
        raise DataError(printable(f"corpus: {corpus} {problem}; {advice}"))
    of_each(lambda path: _check_file(path, _mode(path)), found)
    return found


def is_text(path: Path) -> bool:
    """Return whether a file of a folder is read: by the ending of its name alone."""
    return path.name.lower().endswith((*KINDS, *PACKED))


def is_glob(corpus: Path) -> bool:
    """Return whether `corpus` is no file or folder, but a pattern of the names of files."""
    return any(sign in str(corpus) for sign in "*?[") and not files.exists(corpus)


def root_of(corpus: Path) -> Path:
    """Return the folder that the paths of a corpus's files are told from."""
    if is_glob(corpus):
        plain = takewhile(lambda part: not any(sign in part for sign in "*?["), corpus.parts)
        return Path(*plain)
    return corpus if corpus.is_dir() else corpus.parent


def natural_order(path: PurePath) -> list[tuple[list[int | str], str]]:
    """Return what sorts paths part by part, runs of digits as the numbers they are: 2 before 10."""
    return [
        ([int(run) if at % 2 else run for at, run in enumerate(DIGITS.split(part))], part)
        for part in path.parts
    ]


def is_plain(path: Path) -> bool:
    """Return whether a file is unpacked text, of which any span can be read by itself."""
    return kind_of(path) == "text" and not packing(path)


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
    """Return the files of a folder or glob in order, less `COMPANIONS` and what is in them."""
    root = root_of(corpus)
    if is_glob(corpus):
        found = _match(root, corpus.relative_to(root))
    else:
        found = _files_in(corpus) if corpus.is_dir() else iter(())
    relative = sorted((path.relative_to(root) for path in found), key=natural_order)
    return [root / path for path in relative]


def _match(root: Path, pattern: Path) -> Iterator[Path]:
    # of a ** at the end Python's older versions give folders alone
    pattern = pattern / "*" if pattern.name == "**" else pattern
    try:
        found = {path for path in root.glob(str(pattern)) if not path.is_dir()}
    except (ValueError, NotImplementedError, OSError) as error:
        raise DataError(printable(f"corpus: {root / pattern} is no pattern: {error}")) from error
    for path in found:
        if not any(map(is_companion, path.relative_to(root).parts)):
            yield path


def _files_in(corpus: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(corpus, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not is_companion(name))
        for link in (path for name in folders if (path := Path(root, name)).is_symlink()):
            problem = f"corpus: {link} is a link to a folder, where DVC would not see new text"
            raise DataError(printable(f"{problem}; allowed: folders and files, and links to files"))
        yield from (Path(root, name) for name in names if not is_companion(name))


def is_companion(name: str) -> bool:
    """Return whether a file or folder is what an editor or a system keeps beside texts."""
    return IS_COMPANION(name) is not None


def count_companions(corpus: Path) -> int:
    """Return how many texts of a folder are passed over because they are companions."""
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


def read_file(path: Path, *, field: str = FIELD, any_encoding: bool = False) -> str:
    r"""Return the normalised text of one file; its records joined by `\n`.

    Raises DataError where it is not text, and ExtraError where its kind needs a missing library.
    """
    if kind_of(path) == "records":
        return "\n".join(map(normalise, read_records(path, field=field)))
    with open_utf8(path, any_encoding=any_encoding) as file:
        return plain.decode(file.read(), path)


def read_start(
    path: Path, size: int, *, field: str = FIELD, any_encoding: bool = False
) -> tuple[str, bool]:
    """Return the normalised text of about the first `size` bytes of a file, and if it is all.

    Raises what `read_file` raises, as far as it reads.
    """
    if kind_of(path) == "records":
        texts, left = [], size
        for record in map(normalise, read_records(path, field=field)):
            texts.append(record)
            left -= len(record) + 1
            if left < 0:
                break
        return "\n".join(texts), left >= 0
    with open_utf8(path, any_encoding=any_encoding) as file:
        content = file.read(size + 1)
    whole = len(content) <= size
    return plain.decode(content if whole else plain.cut(content[:size]), path), whole


def read_corpus(
    corpus: str | Path, *, field: str = FIELD, any_encoding: bool = False
) -> tuple[str, list[Source]]:
    r"""Return the whole text of `corpus`, its files joined by `\n`, and what was read.

    `field` is that of records (.jsonl, .parquet) in which their text is. Raises DataError with a
    line for each file that is not text.
    """

    def read(path: Path) -> tuple[str, Source]:
        source = describe_file(path, Path(corpus))
        return read_file(path, field=field, any_encoding=any_encoding), source

    found = of_each(read, find_text_files(corpus))
    text = "\n".join(text for text, _ in found)
    if not text.strip():
        raise DataError(f"corpus: {corpus} holds no text; put some into its files")
    return text, [source for _, source in found]


def describe_file(path: Path, corpus: Path) -> Source:
    """Return one of the files of `corpus` as it is on the disk, packed or not."""
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return Source(name_in(corpus, path), file.tell(), sha256)
    except OSError as error:
        raise DataError(printable(f"{path}: cannot be read: {error.strerror}")) from error


def name_in(corpus: Path, path: Path) -> str:
    """Return the path of a file inside its corpus, as descriptions have it."""
    return path.relative_to(root_of(corpus)).as_posix()


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
