"""The corpus: which files are read, in what order and form, and how they are split."""

import gzip
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import warm
from every import some
from hypothesis import given
from hypothesis import strategies as st
from imports import ROOT

from nanogpt2.base.system.errors import DataError
from nanogpt2.text.reading import corpus
from nanogpt2.text.reading.streams import ZSTD

DVC = (warm.executable(), "-m", "dvc")


def write(path: Path, content: str | bytes = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def found_in(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in corpus.find_text_files(folder)]


def assert_refused(folder: Path, *parts: str) -> None:
    with pytest.raises(DataError) as error:
        corpus.read_corpus(folder)
    assert "\n" not in str(error.value)
    for part in (str(folder), *parts):
        assert part in str(error.value)


# --- Which files ---


def test_files_are_sorted_by_path_at_any_depth(tmp_path: Path) -> None:
    names = ["b.txt", "a/z.txt", "a/b/c.txt", "a.txt", "a-b.txt", "B.TXT", "é.txt"]
    for name in names:
        write(tmp_path / name)
    write(tmp_path / "notes.md")
    write(tmp_path / "txt")
    expected = ["B.TXT", "a/b/c.txt", "a/z.txt", "a-b.txt", "a.txt", "b.txt", "é.txt"]
    assert found_in(tmp_path) == expected


def test_numbers_in_names_are_compared_as_numbers(tmp_path: Path) -> None:
    names = [
        *("2/a.txt", "10/a.txt", "02/b.txt", "2/c.txt", "part-10.txt", "part-2.txt", "part-02.txt"),
        *(
            "part-2.1.txt",
            "part-²-3.txt",
            "part.txt",
            "12a.txt",
            "9.txt",
            f"{10**60}.txt",
            "a1.txt",
        ),
    ]
    for name in names:
        write(tmp_path / name)
    assert found_in(tmp_path) == [
        *("02/b.txt", "2/a.txt", "2/c.txt", "9.txt", "10/a.txt", "12a.txt", f"{10**60}.txt"),
        *("a1.txt", "part-2.1.txt", "part-02.txt", "part-2.txt", "part-10.txt", "part-²-3.txt"),
        "part.txt",
    ]


@pytest.mark.parametrize("count", some([1500, 10_000], 1500))
def test_thousands_of_files_are_in_order(tmp_path: Path, count: int) -> None:
    for number in range(count):
        (tmp_path / f"{number}.txt").touch()
    assert found_in(tmp_path) == [f"{number}.txt" for number in range(count)]


def test_texts_packed_texts_and_records_of_a_folder_are_read(tmp_path: Path) -> None:
    write(tmp_path / "1.txt", "one\r\n")
    write(tmp_path / "2.TXT.GZ", gzip.compress(b"\xef\xbb\xbftwo"))
    write(tmp_path / "3.jsonl", '{"text": "three", "id": 3}\n{"text": "cafe\u0301"}\n')
    write(tmp_path / "deep/4.jsonl.gz", gzip.compress(b'{"text": "four"}'))
    text, sources = corpus.read_corpus(tmp_path)
    assert text == "one\n\ntwo\nthree\ncafé\nfour"
    for source in sources:
        content = (tmp_path / source.path).read_bytes()
        assert (source.bytes, source.sha256) == (
            len(content),
            hashlib.sha256(content).hexdigest(),
        )
    assert corpus.read_corpus(tmp_path / "3.jsonl")[0] == "three\ncafé"
    with pytest.raises(DataError, match="no field 'body'; there are: text, id"):
        corpus.read_corpus(tmp_path / "3.jsonl", field="body")


def test_tables_and_zst_are_read_too(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    zstd = pytest.importorskip(ZSTD)
    parquet.write_table(arrow.table({"text": ["one", "two"]}), tmp_path / "1.parquet")
    write(tmp_path / "2.txt.zst", zstd.compress(b"three"))
    write(tmp_path / "3.jsonl.zst", zstd.compress(b'{"text": "four"}'))
    assert corpus.read_corpus(tmp_path)[0] == "one\ntwo\nthree\nfour"


def test_all_files_that_are_no_text_are_named(tmp_path: Path) -> None:
    for name in ("a.txt.gz", "b.jsonl", "c.txt"):
        write(tmp_path / name, b"gr\xf6\xdfer")
    with pytest.raises(DataError) as error:
        corpus.read_corpus(tmp_path)
    lines = str(error.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        str(tmp_path / name) for name in ("a.txt.gz", "b.jsonl", "c.txt")
    ]
    assert corpus.read_corpus(tmp_path / "c.txt", any_encoding=True)[0] == "größer"


# --- Patterns ---

FOLDER = ["a.txt", "b/part-2.jsonl", "b/part-10.jsonl", "c/part-1.txt", "c/d/part-3.txt", "c/x.md"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*/part-*.jsonl", ["b/part-2.jsonl", "b/part-10.jsonl"]),
        ("*.txt", ["a.txt"]),
        ("**/part-?.*", ["b/part-2.jsonl", "c/d/part-3.txt", "c/part-1.txt"]),
        ("c/**", ["c/d/part-3.txt", "c/part-1.txt"]),
        ("[ab]*", ["a.txt"]),
    ],
)
def test_a_pattern_names_the_files_that_it_matches(
    pattern: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FOLDER:
        write(tmp_path / name, '{"text": "a"}' if "jsonl" in name else "a")
    write(tmp_path / "c/._part-1.txt", b"\0")
    found = corpus.find_text_files(tmp_path / pattern)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == expected
    root = corpus.root_of(tmp_path / pattern)
    _, sources = corpus.read_corpus(tmp_path / pattern)
    assert [(root / source.path).relative_to(tmp_path).as_posix() for source in sources] == expected
    monkeypatch.chdir(tmp_path)
    assert [path.as_posix() for path in corpus.find_text_files(pattern)] == expected


def test_what_a_pattern_matches_and_is_not_read_is_counted(tmp_path: Path) -> None:
    for name in FOLDER:
        write(tmp_path / name)
    assert corpus.count_passed_over(tmp_path / "**/*") == {".md": 1}
    assert corpus.count_companions(tmp_path / "c/*") == 0


def test_a_pattern_that_matches_no_text_is_refused(tmp_path: Path) -> None:
    for name in FOLDER:
        write(tmp_path / name)
    assert_refused(tmp_path / "*.md", "matches no .txt file, nor one of .jsonl")
    assert_refused(tmp_path / "c/*.md", "it matches 1 .md")
    assert_refused(tmp_path / "nowhere/*.txt", "matches no .txt file")
    assert_refused(tmp_path / "c**.txt", "")


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    write(tmp_path / "part-1.txt")
    path = write(tmp_path / "part-[1].txt", "this")
    assert corpus.read_corpus(path)[0] == "this"


def test_a_lone_file_is_a_corpus(tmp_path: Path) -> None:
    path = write(tmp_path / "poem.txt", "To be")
    text, sources = corpus.read_corpus(path)
    assert text == "To be"
    assert [source.path for source in sources] == ["poem.txt"]


def test_a_folder_named_like_a_text_is_searched(tmp_path: Path) -> None:
    write(tmp_path / "plays.txt/hamlet.txt")
    assert found_in(tmp_path) == ["plays.txt/hamlet.txt"]


def test_links_to_files_and_a_link_as_the_corpus_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/deep/a.txt")
    write(tmp_path / "b.txt")
    (tmp_path / "elsewhere/b.txt").symlink_to("../b.txt")
    (tmp_path / "raw").symlink_to("elsewhere")
    assert found_in(tmp_path / "raw") == ["b.txt", "deep/a.txt"]


@pytest.mark.parametrize("target", [".", "..", "../deep", "/usr"])
def test_a_link_to_a_folder_is_refused_as_dvc_does_not_look_into_it(
    target: str, tmp_path: Path
) -> None:
    write(tmp_path / "deep/a.txt")
    link = tmp_path / "deep/link"
    link.symlink_to(target)
    assert_refused(tmp_path, str(link), "is a link to a folder", "DVC")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(lambda path: None, "does not exist", id="missing"),
        pytest.param(lambda path: path.mkdir(), "holds no .txt file", id="empty folder"),
        pytest.param(lambda path: write(path / "a.md"), "holds no .txt file", id="no .txt"),
        pytest.param(
            lambda path: (path / "a.txt").mkdir(parents=True), "holds no .txt file", id="folder.txt"
        ),
        pytest.param(lambda path: path.symlink_to("none"), "leads nowhere", id="dangling link"),
        pytest.param(
            lambda path: path.symlink_to(path.name), "Too many levels", id="link to itself"
        ),
        pytest.param(lambda path: os.mkfifo(path), "is no regular file", id="pipe"),
        pytest.param(lambda path: write(path, ""), "holds no text", id="empty file"),
        pytest.param(lambda path: write(path, " \n\t\n"), "holds no text", id="blank file"),
    ],
)
def test_a_corpus_that_is_no_text_is_refused(
    make: Callable[[Path], object], problem: str, tmp_path: Path
) -> None:
    make(tmp_path / "raw")
    assert_refused(tmp_path / "raw", problem)


def test_a_file_in_the_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write(tmp_path / "good.txt")
    bad = tmp_path / "deep/bad.txt"
    bad.parent.mkdir()
    for target, problem in [("nowhere", "leads nowhere"), ("bad.txt", "Too many levels")]:
        bad.symlink_to(target)
        assert_refused(tmp_path, str(bad), problem)
        bad.unlink()
    os.mkfifo(bad)
    assert_refused(tmp_path, str(bad), "is no regular file")


# --- What editors and systems keep beside texts ---

COMPANIONS = {
    "macOS": [
        "._a.txt",
        "deep/._b.txt",
        "__MACOSX/a.txt",
        ".AppleDouble/a.txt",
        ".Trashes/1/a.txt",
    ],
    "Emacs": [".#a.txt", "deep/.#b.txt"],
    "Word": ["~$a.txt"],
    "Android": [".trashed-1700000000-a.txt", ".pending-1700000000-a.txt"],
    "Linux": [".Trash-1000/files/a.txt", "lost+found/a.txt"],
    "Windows": ["$RECYCLE.BIN/S-1/a.txt"],
    "Synology": ["@eaDir/a.txt/SYNO.txt", "#recycle/a.txt"],
    "Syncthing": [".stversions/a~20240101-120000.txt"],
    "Dropbox": [".dropbox.cache/a.txt"],
    "Jupyter": [".ipynb_checkpoints/a-checkpoint.txt"],
}
TEXTS = ["a.txt", "deep/.b.txt", ".hidden.txt", "_a.txt", "#a.txt", "$a.txt", "~a.txt", "a (1).txt"]


@pytest.mark.parametrize("system", COMPANIONS)
def test_a_companion_is_no_text(system: str, tmp_path: Path) -> None:
    for name in TEXTS:
        write(tmp_path / name)
    for name in COMPANIONS[system]:
        write(tmp_path / name, b"\0\x05\x16\x07")
    assert found_in(tmp_path) == sorted(TEXTS)
    assert corpus.count_companions(tmp_path) == len(COMPANIONS[system])
    assert corpus.count_passed_over(tmp_path) == {}


def test_a_link_that_leads_nowhere_is_no_matter_where_it_is_a_companion(tmp_path: Path) -> None:
    write(tmp_path / "a.txt")
    (tmp_path / ".#a.txt").symlink_to("me@machine.1234:1700000000")  # how Emacs locks a file
    assert found_in(tmp_path) == ["a.txt"]


def test_dvc_sees_the_texts_and_not_the_companions(tmp_path: Path) -> None:
    """Otherwise a run would be stale after an editor opened a text."""
    subprocess.run([*DVC, "init", "--no-scm", "-q"], cwd=tmp_path, check=True)
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    companions = [name for names in COMPANIONS.values() for name in names]
    names = [*TEXTS, *companions]
    for name in names:
        write(tmp_path / "data/raw" / name)
    done = subprocess.run(
        [*DVC, "check-ignore", *(f"data/raw/{name}" for name in names)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    ignored = [line.removeprefix("data/raw/") for line in done.stdout.splitlines()]
    assert sorted(ignored) == sorted(companions)


# --- What is passed over ---


def test_files_of_other_kinds_are_counted(tmp_path: Path) -> None:
    names = ["a.txt", "b.md", "deep/c.MD", "d.tar.gz", "e.json", "f.epub", "README", ".gitignore"]
    for name in names:
        write(tmp_path / name)
    expected = {
        ".epub": 1, ".gitignore": 1, ".gz": 1, ".json": 1, ".md": 2, "without ending": 1
    }  # fmt: skip
    assert corpus.count_passed_over(tmp_path) == expected
    assert corpus.list_kinds(expected) == (
        "2 .md, 1 .epub, 1 .gitignore, 1 .gz, 1 .json, 1 of other kinds"
    )


def test_a_folder_without_text_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.md", "b.md", "c.pdf"):
        write(tmp_path / name)
    assert_refused(
        tmp_path, "holds no .txt file, nor", "put your text there as .txt; it holds 2 .md, 1 .p"
    )


# --- In what form ---


def test_files_are_joined_by_a_newline_each_without_its_byte_order_mark(tmp_path: Path) -> None:
    contents = {"1.txt": b"\xef\xbb\xbfone\r\n", "2.txt": "zwei, e\u0301".encode(), "3.txt": b"3"}
    for name, content in contents.items():
        write(tmp_path / name, content)
    text, sources = corpus.read_corpus(tmp_path)
    assert text == "one\n\nzwei, é\n3"
    for source, (name, content) in zip(sources, contents.items(), strict=True):
        assert (source.path, source.bytes) == (name, len(content))
        assert source.sha256 == hashlib.sha256(content).hexdigest()


# --- How it is split ---


@given(
    text=st.text(min_size=50),
    val_fraction=st.floats(0.02, 0.49),
    test_fraction=st.just(0) | st.floats(0.02, 0.49),
)
def test_splits_are_contiguous_and_cover_the_text(
    text: str, val_fraction: float, test_fraction: float
) -> None:
    parts = corpus.split(text, val_fraction=val_fraction, test_fraction=test_fraction)
    assert "".join(parts.values()) == text
    assert list(parts) == (["train", "val", "test"] if test_fraction else ["train", "val"])
    assert 0 <= len(text) * val_fraction - len(parts["val"]) < 1
    assert 0 <= len(text) * test_fraction - len(parts.get("test", "")) < 1


@pytest.mark.parametrize(
    ("text", "val_fraction", "test_fraction", "empty"),
    [
        ("", 0.5, 0, "train"),
        ("a", 0.5, 0, "val"),
        ("a" * 9, 0.1, 0.5, "val"),
        ("a" * 19, 0.1, 0.05, "test"),
        ("a" * 99, 0.999, 1e-9, "test"),
    ],
)
def test_a_split_without_text_is_refused(
    text: str, val_fraction: float, test_fraction: float, empty: str
) -> None:
    problem = f"{len(text)} characters leave none for the {empty} split"
    with pytest.raises(DataError, match=problem):
        corpus.split(text, val_fraction=val_fraction, test_fraction=test_fraction)


def test_the_held_out_pieces_are_the_end_of_the_text() -> None:
    parts = corpus.split("abcdefghij", val_fraction=0.2, test_fraction=0.1)
    assert parts == {"train": "abcdefg", "val": "hi", "test": "j"}
