"""Files as streams: archives unpacked wholly, encodings found, errors told, little memory."""

import gzip
import random
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.base.system.errors import DataError, ExtraError
from nanogpt2.text.reading import streams

TEXT = "To be, or not to be: that is the question.\n" * 60_000  # more than two blocks


def zstd() -> Any:
    return pytest.importorskip(streams.ZSTD, reason="needs the extra zst")


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda content: gzip.compress(content, 1, mtime=0),
    ".zst": lambda content: bytes(zstd().compress(content)),
}


@pytest.fixture(params=list(PACK))
def ending(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def read(path: Path) -> bytes:
    with streams.open_bytes(path) as file:
        return file.read()


def problem(path: Path, *parts: str) -> None:
    with pytest.raises(DataError) as error:
        read(path)
    line = str(error.value)
    assert "\n" not in line
    for part in (f"{path}: ", *parts):
        assert part in line


# --- Archives ---


def test_an_archive_is_read_as_what_is_in_it(ending: str, tmp_path: Path) -> None:
    for name in (f"a.txt{ending}", f"B.TXT{ending.upper()}"):
        path = tmp_path / name
        path.write_bytes(PACK[ending](TEXT.encode()))
        assert read(path) == TEXT.encode()


def test_all_parts_of_an_archive_are_read(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(b"".join(map(PACK[ending], [b"one\n", b"", TEXT.encode(), b"two\n"])))
    assert read(path) == b"one\n" + TEXT.encode() + b"two\n"


def test_a_plain_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode())
    assert read(path) == TEXT.encode()


@pytest.mark.parametrize("size", [7, 10_000, -1])
def test_an_archive_that_was_cut_off_is_told(size: int, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(PACK[ending](random.Random(0).randbytes(20_000))[:size])
    problem(path, "archive is cut off; make it anew")


@pytest.mark.parametrize("content", ["no archive", "damaged", "more after it"])
def test_a_damaged_archive_is_told(content: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.txt{ending}"
    whole = bytearray(PACK[ending](b"".join(b"%d " % number for number in range(20_000))))
    if content == "damaged":
        for at in range(len(whole) // 2, len(whole) // 2 + 50):
            whole[at] ^= 0xFF
    path.write_bytes(TEXT.encode() if content == "no archive" else bytes(whole) + b"more" * 9)
    problem(path, "archive is none, or damaged; make it anew")


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    problem(tmp_path / "a.txt.gz", "cannot be read: No such file")


def test_without_its_library_one_line_says_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd")
    monkeypatch.setitem(sys.modules, streams.ZSTD, None)
    with pytest.raises(ExtraError, match=r"zstd is not installed: .*nanogpt2\[zst\]"):
        read(path)


def test_a_large_archive_takes_little_memory(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(PACK[ending](TEXT.encode()) * 20)
    total = 0
    tracemalloc.start()
    with streams.open_utf8(path, any_encoding=True) as file:
        while block := file.read(streams.BLOCK_BYTES):
            total += len(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 20 * len(TEXT)
    assert peak < 10 * streams.BLOCK_BYTES < total / 4


# --- Encodings ---


def read_utf8(path: Path) -> tuple[str, list[str]]:
    said: list[str] = []
    with streams.open_utf8(path, any_encoding=True, say=said.append) as file:
        return file.read().decode(), said


@given(text=st.text())
def test_utf8_stays_as_it_is(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = text.replace("\0", "")
    path = tmp_path_factory.getbasetemp() / "utf8.txt"
    path.write_bytes((text + "größer").encode())
    assert read_utf8(path) == (text + "größer", [])


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_the_first_letters_beyond_ascii_tell_the_encoding_wherever_they_are(
    ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.txt{ending}"
    text = TEXT + "Füße größer, Österreich.\n" + TEXT + "Mädchen über die Straße\n"
    content = text.encode("cp1252")
    path.write_bytes(gzip.compress(content, 1) if ending else content)
    assert read_utf8(path) == (text, ["cp1252"])


def test_what_no_encoding_fits_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    content = random.Random(0).randbytes(5000)
    path.write_bytes(content)
    with streams.open_utf8(path, any_encoding=True) as file:
        assert file.read() == content


@pytest.mark.parametrize(
    ("encoding", "wrong", "at"),
    [
        ("cp1252", b"ab\x81\n", 2),
        ("utf-16", b"\x00\xdc\n\x00", 0),
        ("utf-16-be", b"a", 0),
        ("euc_jp", b"a\x8f\xff\n", 1),
    ],
)
def test_what_breaks_the_encoding_later_has_its_place(
    encoding: str, wrong: bytes, at: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    first = "日本語の文章は漢字とひらがなとカタカナで書かれます。\n" if encoding == "euc_jp" else ""
    text = (first or "Füße größer, Österreich.\n") + "x\n" * 5 + TEXT
    content = text.encode(encoding)
    path.write_bytes(content + wrong)
    with pytest.raises(DataError) as error:
        read_utf8(path)
    assert str(error.value) == (
        f"{path}: not {encoding} text (line {text.count(chr(10)) + 1}, byte {len(content) + at}),"
        " though it begins so; mend that place"
    )
