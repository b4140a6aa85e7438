"""The prepare stage: what it writes, and what hostile texts do to it."""

import json
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from every import EXAMPLES, some
from hypothesis import given, settings
from hypothesis import strategies as st
from preparing import PREPARED, assert_one_line, make_files, run

from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.files import sha256
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.tokens.dataset import TokenDataset, load_prepared_tokenizer, load_split, load_tokens
from nanogpt2.tokens.normal import normalise
from stages.prepare import main as prepare_stage
from stages.validate import main as validate_stage

TEXT = "The quick brown fox jumps over the lazy dog. " * 20
OPTIONS: dict[str, Any] = {"tokenizer": "char", "vocab_size": 256, "fractions": (0.1, 0.05)}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def prepared_text() -> str:
    """Return the whole text that the prepare stage wrote, from its token files."""
    tokenizer = load_prepared_tokenizer(PREPARED)
    return "".join(tokenizer.decode(load_tokens(PREPARED, split)) for split in ("train", "val"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- What is written ---


@pytest.mark.parametrize("tokenizer", ["char", "byte"])
def test_token_files_hold_the_encoded_splits(tokenizer: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "b.txt").write_text("größer, naïve\n" * 20, encoding="utf-8", newline="\r\n")
    out = tmp_path / "data/prepared"
    prepare(tmp_path, out, **OPTIONS | {"tokenizer": tokenizer})
    text = TEXT + "\n" + "größer, naïve\n" * 20
    n_val, n_test = len(text) * 10 // 100, len(text) * 5 // 100
    bounds = [0, len(text) - n_val - n_test, len(text) - n_test, len(text)]
    trained = load_prepared_tokenizer(out)
    description = json.loads((out / "dataset.json").read_text(encoding="utf-8"))
    for split, start, end in zip(("train", "val", "test"), bounds, bounds[1:], strict=False):
        content = (out / f"{split}.bin").read_bytes()
        assert np.array_equal(np.frombuffer(content, "<u2"), trained.encode(text[start:end]))
        assert description["splits"][split] == {
            "characters": [start, end],
            "bytes": len(text[start:end].encode()),
            "tokens": len(content) // 2,
        }
    assert description["tokenizer"] == tokenizer
    assert description["vocabulary"] == trained.size
    assert description["characters"] == len(text)
    assert description["tokens"] == len(trained.encode(text))
    assert description["sources"] == [
        {"path": name, "bytes": len(content), "sha256": sha256(content)}
        for name in ("a.txt", "b.txt")
        for content in [(tmp_path / name).read_bytes()]
    ]
    assert sorted(path.name for path in out.iterdir()) == [
        *("dataset.json", "test.bin", "tokenizer.json", "train.bin", "val.bin")
    ]


@settings(deadline=None, max_examples=EXAMPLES // 2)
@given(
    text=st.text(st.characters(codec="utf-8", exclude_characters="\0")).map("ab{}".format),
    tokenizer=st.sampled_from(["char", "byte"]),
)
def test_any_text_comes_back_from_the_token_files(
    text: str, tokenizer: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    source, out = folder / "any.txt", folder / "any"
    source.write_bytes(text.encode())
    description = prepare(
        source, out, tokenizer=tokenizer, vocab_size=100_000, fractions=(0.5, 0.0)
    )
    trained = load_prepared_tokenizer(out)
    splits = {split: load_tokens(out, split) for split in description["splits"]}
    assert "".join(map(trained.decode, splits.values())) == normalise(text)
    for split, tokens in splits.items():
        assert trained.count_bytes(tokens) == description["splits"][split]["bytes"]


def test_a_large_vocabulary_is_written_in_four_bytes_a_token(tmp_path: Path) -> None:
    text = "".join(map(chr, range(0x20000, 0x20000 + 70_000)))
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    prepare(tmp_path / "a.txt", tmp_path / "out", **OPTIONS | {"vocab_size": 70_000})
    tokens = load_tokens(tmp_path / "out", "train")
    assert tokens.dtype == np.dtype("<u4")
    assert (tmp_path / "out/train.bin").stat().st_size == 4 * len(tokens)
    assert load_prepared_tokenizer(tmp_path / "out").decode(tokens) == text[: len(tokens)]


@pytest.mark.parametrize(("n_bytes", "n_warnings"), [(999_999, 1), (1_000_000, 0)])
def test_little_text_is_warned_of(n_bytes: int, n_warnings: int, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes((b"abcdefg\n" * 125_000)[:n_bytes])
    warnings = prepare(tmp_path, tmp_path / "out", **OPTIONS)["warnings"]
    of_size = [warning for warning in warnings if "of text are little" in warning]
    assert len(of_size) == n_warnings
    assert all("999,999 bytes" in warning and "1 MB" in warning for warning in of_size)


def test_held_out_text_that_also_stands_in_the_training_text_is_warned_of(tmp_path: Path) -> None:
    letters = random.Random(0).choices("abcdefghij \n", k=10_000)  # splits at 8500 and 9500
    letters[8700:8900] = letters[1000:1200]  # 200 characters have 101 windows of 100
    letters[9600:9640] = letters[2000:2040]  # too short to be a copy
    (tmp_path / "a.txt").write_text("".join(letters), encoding="utf-8")
    description = prepare(tmp_path, tmp_path / "out", **OPTIONS)
    assert description["overlap"] == {"window": 100, "val": round(101 / 901, 6), "test": 0.0}
    (warning,) = [warning for warning in description["warnings"] if "windows" in warning]
    assert warning.startswith("11.2% of the val split's windows of 100 characters stand in the tra")


def test_texts_without_copies_have_no_overlap(tmp_path: Path) -> None:
    letters = random.Random(0).choices("abcdefghij \n", k=2000)
    (tmp_path / "a.txt").write_text("".join(letters), encoding="utf-8")
    description = prepare(tmp_path, tmp_path / "out", **OPTIONS | {"fractions": (0.02, 0.0)})
    assert description["overlap"] == {"window": 100, "val": 0.0}  # 40 characters: no window at all
    assert len(description["warnings"]) == 1


def test_the_description_counts_what_is_passed_over(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.txt").write_text(TEXT, encoding="utf-8")
    for name in ("b.md", "c.md", "d.gz", "._a.txt", ".#a.txt"):
        (raw / name).write_bytes(b"\0")
    description = prepare(raw, raw / "out", **OPTIONS)
    assert description["passed_over"] == {".gz": 1, ".md": 2}
    assert prepare(raw, raw / "out", **OPTIONS) == description  # its own output is no file of these


def test_the_stage_says_what_is_passed_over(here: Path) -> None:
    make_files("raw/a.txt", "raw/b.md", "raw/c.md", "raw/d.gz", "raw/._a.txt", "raw/.#a.txt")
    lines = run(prepare_stage).stdout.splitlines()
    assert lines[1] == "passed over, not read: 2 .md, 2 kept by editors or systems, 1 .gz"


def test_the_stage_prints_what_it_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("raw.txt").write_text(TEXT, encoding="utf-8")
    lines = run(prepare_stage, corpus="raw.txt").stdout.splitlines()
    assert lines[0] == f"read 1 file, {len(TEXT)} bytes, {len(TEXT)} characters"
    assert lines[-1].startswith("warning: ")


def test_the_same_text_gives_the_same_bytes_and_no_old_file_stays(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    out = tmp_path / "out"
    prepare(tmp_path, out, **OPTIONS)
    first = contents(out)
    prepare(tmp_path, out, **OPTIONS)
    assert contents(out) == first
    prepare(tmp_path, out, **OPTIONS | {"fractions": (0.1, 0.0)})
    assert sorted(set(first) - set(contents(out))) == ["test.bin"]


# --- Errors leave the old folder whole ---


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond 100 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_old_folder_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    out = tmp_path / "data/prepared"
    prepare(tmp_path, out, **OPTIONS)
    before = contents(out)
    with full_disk(), pytest.raises(DataError, match=r"cannot be written: File too large"):
        prepare(tmp_path, out, **OPTIONS)
    assert contents(out) == before
    assert list(out.parent.iterdir()) == [out]


@pytest.mark.parametrize(
    ("options", "content", "problem"),
    [
        ({"vocab_size": 10}, TEXT.encode(), "vocab_size: found 10; allowed: at least 29"),
        ({"tokenizer": "byte", "vocab_size": 255}, TEXT.encode(), "at least 256"),
        ({}, b"caf\xe9", "not UTF-8"),
        ({}, b"", "no text"),
        ({"fractions": (0.1, 1e-9)}, TEXT.encode(), "none for the test split"),
    ],
)
def test_an_error_leaves_the_old_folder_whole(
    options: dict[str, Any], content: bytes, problem: str, tmp_path: Path
) -> None:
    source, out = tmp_path / "a.txt", tmp_path / "data/prepared"
    source.write_text(TEXT, encoding="utf-8")
    prepare(source, out, **OPTIONS)
    before = contents(out)
    source.write_bytes(content)
    with pytest.raises(DataError, match=problem):
        prepare(source, out, **OPTIONS | options)
    assert contents(out) == before
    assert list(out.parent.iterdir()) == [out]


# --- Hostile texts: each works, or is refused by one line, by validate and by prepare ---


RANDOM_BYTES = random.Random(0).randbytes(10_000)
REFUSED = {
    "empty": (b"", "raw holds no text"),
    "one character": (b"a", "1 characters leave none for the val split"),
    "white space only": (b" \n\t\r\n" * 100, "raw holds no text"),
    "byte order mark only": (b"\xef\xbb\xbf", "raw holds no text"),
    "Latin-1": ("café\n".encode("latin-1") * 50, "raw/a.txt: not UTF-8 text (line 1"),
    "UTF-8 cut short": (("café" * 50).encode()[:-1], "not UTF-8 text (line 1, byte 248)"),
    "UTF-16": (TEXT.encode("utf-16"), "raw/a.txt: UTF-16 text; save it as UTF-8"),
    "UTF-16 without its mark": (TEXT.encode("utf-16-le"), "raw/a.txt: UTF-16LE text; save it"),
    "UTF-32": (TEXT.encode("utf-32"), "save it as UTF-8"),
    "binary": (RANDOM_BYTES, "raw/a.txt: not UTF-8 text"),
    "binary at the end": (TEXT.encode() + RANDOM_BYTES, "raw/a.txt: not UTF-8 text"),
    "NUL bytes": (TEXT.encode() + b"\0" + TEXT.encode(), "NUL characters (line 1, byte 900)"),
}
READ = {
    "four characters": ("abcd", "abcd"),
    "one letter over and over": ("a" * 1000, "a" * 1000),
    "newlines within": ("a" + "\n" * 1000, "a" + "\n" * 1000),
    "Windows newlines": ("one\r\ntwo\r\n", "one\ntwo\n"),
    "old Mac newlines": ("one\rtwo\r", "one\ntwo\n"),
    "byte order mark": ("\ufeffone two", "one two"),
    "byte order mark within": ("one\ufefftwo", "one\ufefftwo"),
    "emoji": ("👩\u200d👩\u200d👧 🏳️\u200d🌈 👍🏽 " * 9,) * 2,
    "combining marks": ("e\u0301a\u0308o\u0323\u0302 " * 3, "éäộ " * 3),
    "marks without end": ("z" + "\u0300\u0323" * 500, "ẓ" + "\u0323" * 499 + "\u0300" * 500),
    "right to left": ("שלום \u202eabc\u202c مرحبا",) * 2,
    "control characters": ("\x1b[31mred\x1b[0m\x07\x7f",) * 2,
    "private use and noncharacters": ("\ue000\uffff\U0010ffff\ufffd",) * 2,
    "three thousand characters": ("".join(map(chr, range(0x4E00, 0x4E00 + 3000))),) * 2,
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_text_that_cannot_be_used_is_refused(name: str, here: Path) -> None:
    content, problem = REFUSED[name]
    (here / "raw").mkdir()
    (here / "raw/a.txt").write_bytes(content)
    assert_one_line(run(validate_stage), "my.yaml: ", problem)
    assert_one_line(run(prepare_stage), problem)


@pytest.mark.parametrize("tokenizer", ["char", "byte"])
@pytest.mark.parametrize("name", READ)
def test_a_strange_text_is_read(name: str, tokenizer: str, here: Path) -> None:
    content, expected = READ[name]
    (here / "raw").mkdir()
    (here / "raw/a.txt").write_bytes(content.encode())
    for stage in (validate_stage, prepare_stage):
        result = run(stage, tokenizer=tokenizer, vocab_size=5000)
        assert result.exit_code == 0, result.output
    assert prepared_text() == expected
    description = json.loads(Path("out/prepared/dataset.json").read_text(encoding="utf-8"))
    assert description["characters"] == len(expected)


def test_a_text_shorter_than_block_size_is_refused(here: Path) -> None:
    (here / "raw").mkdir()
    (here / "raw/a.txt").write_text("a" * 64, encoding="utf-8")
    problem = "gives the train split 32 tokens; allowed: at least 33 with block_size 32"
    for stage in (validate_stage, prepare_stage):
        assert_one_line(run(stage, block_size=32), problem)
    for stage in (validate_stage, prepare_stage):
        assert run(stage, block_size=31).exit_code == 0
    assert len(load_split(PREPARED, "train", 31)) == 1
    with pytest.raises(DataError, match="the train split has 32 tokens, and block_size 32 needs"):
        load_split(PREPARED, "train", 32)
    with pytest.raises(DataError, match="0 tokens"):
        TokenDataset(np.array([], dtype=np.uint16), 1)


def test_a_test_split_in_which_nothing_can_be_predicted_is_refused(here: Path) -> None:
    (here / "raw.txt").write_text("a" * 100, encoding="utf-8")
    result = run(validate_stage, corpus="raw.txt", test_fraction=0.01)
    assert_one_line(result, "the test split 1 tokens; allowed: at least 2")
    assert run(validate_stage, corpus="raw.txt", test_fraction=0.02).exit_code == 0


def test_a_block_size_beyond_a_text_of_megabytes_is_refused(here: Path) -> None:
    (here / "raw.txt").write_bytes(b"ab" * 1_250_000)
    result = run(validate_stage, corpus="raw.txt", block_size=1_000_000, val_fraction=0.1)
    assert_one_line(result, "the val split 250000 tokens; allowed: at least 1000001")


@pytest.mark.parametrize("letter", some(["a", "字"], "字"))  # of 3 bytes, which a block cuts
def test_one_endless_line_is_read(letter: str, here: Path) -> None:
    n_letters = 5_000_000 // len(letter.encode())
    (here / "raw.txt").write_bytes(letter.encode() * n_letters)
    for stage in (validate_stage, prepare_stage):
        result = run(stage, corpus="raw.txt", vocab_size=1)
        assert result.exit_code == 0, result.output
    assert len(load_tokens(PREPARED, "train")) == n_letters - n_letters // 2


# --- Hostile folders ---


def link_to_itself() -> None:
    Path("raw").mkdir()
    Path("raw/loop.txt").symlink_to("loop.txt")


def link_to_nothing() -> None:
    Path("raw").mkdir()
    Path("raw/gone.txt").symlink_to("../gone.txt")


def pipe() -> None:
    Path("raw").mkdir()
    os.mkfifo("raw/pipe.txt")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: None, "raw does not exist"),
        (lambda: Path("raw").mkdir(), "raw holds no .txt file"),
        (lambda: make_files("raw/a.md", "raw/b.text", "raw/txt"), "raw holds no .txt file"),
        (lambda: Path("raw/a.txt").mkdir(parents=True), "raw holds no .txt file"),
        (lambda: Path("raw").symlink_to("raw"), "raw cannot be read: Too many levels"),
        (link_to_itself, "raw/loop.txt cannot be read: Too many levels of symbolic links"),
        (link_to_nothing, "raw/gone.txt is a link that leads nowhere"),
        (pipe, "raw/pipe.txt is no regular file"),
    ],
    ids=["missing", "empty", "no .txt", "folder.txt", "loop", "file loop", "dangling", "pipe"],
)
def test_a_folder_that_cannot_be_used_is_refused(
    make: Callable[[], None], problem: str, here: Path
) -> None:
    make()
    assert_one_line(run(validate_stage), f"my.yaml: corpus: {problem}", ".txt")
    assert_one_line(run(prepare_stage), f"corpus: {problem}")


@pytest.mark.parametrize("target", [".", "..", "../../raw"])
def test_folders_that_are_linked_in_a_circle_are_refused(target: str, here: Path) -> None:
    make_files("raw/a.txt", "raw/deep/b.txt")
    Path("raw/deep/loop").symlink_to(target)
    for stage in (validate_stage, prepare_stage):
        assert_one_line(run(stage), "corpus: raw/deep/loop is a link to a folder")


def test_a_folder_named_like_a_text_is_searched(here: Path) -> None:
    make_files("raw/plays.txt/hamlet.txt")
    assert run(prepare_stage).exit_code == 0
    assert prepared_text() == "raw/plays.txt/hamlet.txt\n"


def test_a_thousand_files_are_read(here: Path) -> None:
    make_files(*(f"raw/{number:04}.txt" for number in range(1000)))
    for stage in (validate_stage, prepare_stage):
        assert run(stage).exit_code == 0
    assert sorted(prepared_text().split()) == [f"raw/{number:04}.txt" for number in range(1000)]


def test_names_of_files_may_hold_any_text(here: Path) -> None:
    make_files("raw/new\nline.txt", "raw/-rf.txt", "raw/größe 字.txt", "raw/.hidden.txt")
    for stage in (validate_stage, prepare_stage):
        assert run(stage).exit_code == 0
    description = json.loads(Path("out/prepared/dataset.json").read_text(encoding="utf-8"))
    names = [source["path"] for source in description["sources"]]
    assert names == ["-rf.txt", ".hidden.txt", "größe 字.txt", "new\nline.txt"]


def test_a_name_that_is_not_utf8_is_refused_as_dvc_cannot_record_it(here: Path) -> None:
    make_files("raw/a.txt")
    try:
        Path(os.fsdecode(b"raw/caf\xe9.txt")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system has no such names")
    for stage in (validate_stage, prepare_stage):
        assert_one_line(run(stage), "corpus: raw/caf\\udce9.txt: the name is not UTF-8; rename")


@contextmanager
def without_privileges(folder: Path) -> Iterator[None]:
    """Be a user who may not read everything; root becomes nobody, and `folder` his."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no permissions that a test can take away")
    if os.geteuid() != 0:
        yield
        return
    nobody = 65534
    os.chown(folder, nobody, nobody)
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("locked", ["raw/a.txt", "raw/deep", "raw"])
def test_what_may_not_be_read_is_refused(locked: str, here: Path) -> None:
    make_files("raw/a.txt", "raw/deep/b.txt")
    for stage in (validate_stage, prepare_stage):  # loads all modules while they can be read
        assert run(stage).exit_code == 0
    shutil.rmtree("out")
    Path("my.yaml").unlink()
    Path(locked).chmod(0o000)
    try:
        with without_privileges(here):
            assert_one_line(run(validate_stage), locked, "cannot be read: Permission denied")
            assert_one_line(run(prepare_stage), locked, "cannot be read: Permission denied")
    finally:
        Path(locked).chmod(0o755)
