"""What is no plain UTF-8 text: told by its bytes, with its place, and the command that mends it."""

# ruff: noqa: RUF001 (letters that look alike are the matter here)

import bz2
import gzip
import io
import lzma
import random
import re
import shlex
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.base.system.errors import DataError
from nanogpt2.text.reading import plain
from nanogpt2.text.reading.corpus import read_corpus, read_file, read_start

SENTENCES = {
    "French": "Le cœur a ses raisons : « élève », là-bas, façon, naïve — l’été déjà.",
    "German": "Füße größer, Österreich, Mädchen über die Straße, Äpfel.",
    "Spanish": "¿Cómo está usted? ¡Mañana! El niño comió piñas. Año, corazón.",
    "Danish": "Rødgrød med fløde på øen, hæng blåbær. Århus, Ærø, Øst.",
    "Icelandic": "Það er gott að vera á Íslandi, þegar ég fór út í búð.",
    "Polish": "Zażółć gęślą jaźń. Łódź, święto, żółw, ćma, książka, są.",
    "Czech": "Příliš žluťoučký kůň úpěl ďábelské ódy. Člověk, řeka, ještě.",
    "Hungarian": "Árvíztűrő tükörfúrógép. Öt szép szűzlány őrült írót nyúz.",
    "Turkish": "Pijamalı hasta yağız şoföre çabucak güvendi. İstanbul'da güneş ışığı.",
    "Lithuanian": "Įlinkdama fechtuotojo špaga sublykčiojusi pragręžė apvalų arbūzą.",
    "Russian": "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "Ukrainian": "Жебракують філософи при ґанку церкви в Гадячі, ще й шатро їхнє знаємо.",
    "Greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Άνθρωπος, Ελλάδα, είναι.",
    "Hebrew": "דג סקרן שט בים מאוכזב ולפתע מצא חברה. שלום עולם.",
    "Arabic": "نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر",
    "Thai": "เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน",
    "Hindi": "सभी मनुष्य जन्म से स्वतंत्र हैं और गरिमा तथा अधिकारों में समान हैं।",
    "Japanese": "いろはにほへと ちりぬるを。日本語の文章は漢字とひらがなとカタカナで書かれます。",
    "Korean": "키스의 고유조건은 입술끼리 만나야 하고 특별한 기술은 필요치 않다.",
    "Chinese": "今天天气很好，我们去公园散步吧。天地玄黄，宇宙洪荒。中国人民很高兴。",
    "Taiwanese": "今天天氣很好，我們去公園散步吧。臺灣的學生說：「這本書很有意思」。",
}
WRITTEN = [
    *(("French", name) for name in ("cp1252", "mac_roman")),
    *(("German", name) for name in ("latin-1", "cp850", "cp437", "iso8859_15")),
    *(("Spanish", name) for name in ("cp1252", "mac_roman")),
    *(("Danish", "latin-1"), ("Icelandic", "cp1252")),
    *((language, name) for language in ("Polish", "Czech") for name in ("cp1250", "iso8859_2")),
    *(("Hungarian", "cp1250"), ("Turkish", "cp1254"), ("Lithuanian", "cp1257")),
    *(("Russian", name) for name in ("cp1251", "koi8_r", "cp866", "iso8859_5")),
    *(
        ("Ukrainian", "cp1251"),
        *(("Greek", name) for name in ("cp1253", "iso8859_7", "cp737")),
        ("Hebrew", "cp1255"),
        ("Hebrew", "cp862"),
        ("Arabic", "cp1256"),
    ),
    *(("Thai", "cp874"), ("Korean", "cp949"), ("Korean", "iso2022_kr"), ("Taiwanese", "cp950")),
    *(("Japanese", name) for name in ("shift_jis", "euc_jp", "iso2022_jp")),
    *(("Chinese", name) for name in ("gb18030", "gbk")),
    *((language, "utf-16") for language in ("French", "Russian", "Chinese")),
    *((language, "utf-32") for language in ("French", "Russian", "Chinese")),
    *((language, "utf-16-le") for language in ("German", "Russian")),
    *((language, "utf-16-be") for language in ("German", "Russian", "Hindi")),
    *((language, "utf-32-le") for language in ("German", "Korean")),
]
ASCII = "Plain lines come first.\n" * 20


def problem(content: bytes, path: Path = Path("a.txt")) -> str:
    with pytest.raises(DataError) as error:
        plain.decode(content, path)
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line


# --- Encodings ---


@pytest.mark.skipif(not shutil.which("iconv"), reason="needs iconv")
@pytest.mark.parametrize(("language", "encoding"), WRITTEN)
def test_the_command_of_the_error_mends_the_file(
    language: str, encoding: str, tmp_path: Path
) -> None:
    text = ASCII + SENTENCES[language] + "\n" + ASCII
    path = tmp_path / "it's a text.txt"
    path.write_bytes(text.encode(encoding))
    line = problem(path.read_bytes(), path)
    _, _, command = line.rpartition(": iconv ")
    subprocess.run(f"iconv {command}", shell=True, check=True)
    assert plain.read_text(path) == text
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("before", [0, 60_000], ids=["at once", "after two blocks"])
@pytest.mark.parametrize(("language", "encoding"), WRITTEN)
def test_the_encoding_that_is_found_reads_the_file(
    language: str, encoding: str, before: int, tmp_path: Path
) -> None:
    text = ASCII + SENTENCES[language] + "\n" + ASCII
    text = ASCII[:24] * before + text
    path = tmp_path / "a.txt"
    path.write_bytes(text.encode(encoding))
    assert read_file(path, any_encoding=True) == text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            b"plain\nna\xefve",
            'a.txt: not UTF-8 text (line 2, byte 8); save it as UTF-8; as CP1252 it reads "naïve":'
            " iconv -f CP1252 -t UTF-8 a.txt > a.txt.new && mv a.txt.new a.txt",
        ),
        (
            "text".encode("utf-16"),
            "a.txt: UTF-16 text; save it as UTF-8:"
            " iconv -f UTF-16 -t UTF-8 a.txt > a.txt.new && mv a.txt.new a.txt",
        ),
        (
            ("größer" * 50).encode() + b"\xf6",
            "a.txt: not UTF-8 text (line 1, byte 400), though most of it is;"
            " mend or remove that place",
        ),
        (
            "größer\n".encode("latin-1") + "größer\n".encode(),
            "a.txt: not UTF-8 text (line 1, byte 2);"
            " save it as UTF-8, or remove it if it is no text",
        ),
        (
            random.Random(0).randbytes(5000),
            "a.txt: not UTF-8 text (line 1, byte 0);"
            " save it as UTF-8, or remove it if it is no text",
        ),
        (
            b"one\ntwo\0three\0",
            "a.txt: holds NUL characters (line 2, byte 7), so it is no plain text; remove it",
        ),
    ],
    ids=["Latin-1", "UTF-16", "one byte wrong", "two encodings", "random", "NUL"],
)
def test_the_error_says_where_and_what_to_do(content: bytes, expected: str) -> None:
    assert problem(content) == expected


def test_a_strange_path_stays_in_one_line_and_one_word() -> None:
    path = Path("new\nline $(rm).txt")
    with pytest.raises(DataError) as error:
        plain.decode(b"na\xefve", path)
    assert len(str(error.value).splitlines()) == 1
    _, _, command = str(error.value).rpartition("UTF-8 ")
    assert shlex.split(command)[0].endswith("line $(rm).txt")


# --- Other formats, named like texts ---


def zipped(*names: str) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name in names:
            file.writestr(name, "application/epub+zip" if name == "mimetype" else "text " * 20)
    return archive.getvalue()


def tarred() -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        file.addfile(tarfile.TarInfo("a.txt"))
    return archive.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "advice"),
    [
        (gzip.compress(b"text", mtime=0), "a gzip archive", "unpack it"),
        (bz2.compress(b"text"), "a bzip2 archive", "unpack it"),
        (lzma.compress(b"text"), "an xz archive", "unpack it"),
        (b"\x28\xb5\x2f\xfd\x04\x00\x21", "a zstd archive", "unpack it"),
        (tarred(), "a tar archive", "unpack it"),
        (zipped("a.txt"), "a zip archive", "unpack it"),
        (zipped("[Content_Types].xml", "word/document.xml"), "a Word or Office file", "open it"),
        (zipped("_rels/.rels", "[Content_Types].xml"), "a Word or Office file", "open it"),
        (zipped("mimetype"), "an EPUB book", "open it"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(50), "a Word or Office file", "open it"),
        (b"%PDF-1.7\nall in ASCII\n", "a PDF file", "pdftotext"),
        (b"{\\rtf1\\ansi To be, or not to be}", "an RTF file", "save it as plain text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG picture", "remove it"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "a JPEG picture", "remove it"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "what macOS keeps beside a file", "remove it"),
        (b"SQLite format 3\0", "an SQLite database", "remove it"),
        (b"\x7fELF\x02\x01\x01\x00\x00\xb8\xff", "a program", "remove it"),
        (b"\x04\x22\x4d\x18\x64\x40\xa7", "an lz4 archive", "unpack it"),
        (b"title".ljust(60, b"\0") + b"BOOKMOBI", "a Kindle book", "open it"),
        (b"AT&TFORM\0\0\0\x10DJVM", "a DjVu book", "djvutxt"),
        (b"II*\0\x08\0\0\0", "a TIFF picture", "remove it"),
        (b"\0\0\0\x18ftypmp42\0\0", "a video or a recording", "remove it"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "remove it"),
        (b"/annex/objects/SHA256E-s9--0.txt\n", "a pointer to a file in git-annex", "annex get"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
            *("a pointer to a file in git LFS", "git lfs pull"),
        ),
    ],
)
def test_other_formats_are_told_by_their_bytes(content: bytes, name: str, advice: str) -> None:
    line = problem(content)
    assert line.startswith(f"a.txt: {name}, not plain text; ")
    assert advice in line


@pytest.mark.parametrize(
    "text",
    [
        "GIF files are pictures.\n",
        "MZ was a car maker.\n",
        "PK is short for Park.\n",
        "BZh! said the bee.\n",
        "RIFF RAFF.\n",
        "ID3 tags\n",
        "Rar! It roared.\n",
        "II* of the form\n",
        "fLaC and ftyp\n",
        "swifty people: ftyp\n",
        "the version https://git-lfs.github.com/spec/v1\n",
        "\x1b[31mred\x1b[0m and \x1b(B\n",
        "Ãœber, mojibake that is UTF-8\n",
    ],
)
def test_a_text_that_begins_like_another_format_is_read(text: str) -> None:
    assert plain.decode(text.encode(), Path("a.txt")) == text


# --- A file block by block ---


def check_blocks(content: bytes, cuts: set[int], path: Path) -> str:
    """Check the blocks that end after the lines of the numbers `cuts`."""
    lines = [line + b"\n" for line in content.split(b"\n")[:-1]] + [content.split(b"\n")[-1]]
    checker, text, block = plain.Checker(path), "", b""
    for number, line in enumerate(lines):
        block += line
        if number in cuts or number == len(lines) - 1:
            text, block = text + checker.check(block), b""
    return text


LINES = st.text().map(str.encode)


@given(
    lines=st.lists(LINES | st.just(b"gr\xf6\xdfer")) | st.lists(LINES | st.just(b"a\0")),
    cuts=st.sets(st.integers(0, 9)),
)
def test_blocks_give_the_text_of_the_file_or_the_same_place_of_an_error(
    lines: list[bytes], cuts: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = b"\n".join(lines)
    path = tmp_path_factory.getbasetemp() / "blocks.txt"
    path.write_bytes(content)
    try:
        expected = plain.decode_as_is(content, path)
    except DataError as error:
        with pytest.raises(DataError) as found:
            check_blocks(content, cuts, path)
        place = re.search(r"\(line \d+, byte \d+\)", str(error))
        is_wide = "text; save it as UTF-8" in str(found.value)  # guessed from a short first block
        assert place is None or place[0] in str(found.value) or is_wide
    else:
        assert check_blocks(content, cuts, path) == expected


def test_the_place_of_an_error_counts_from_the_start_of_what_was_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.txt.gz"
    first = "größer\n".encode() * 1000
    path.write_bytes(gzip.compress(first + b"na\xefve\n"))
    checker = plain.Checker(path)
    assert checker.check(first) == first.decode()
    with pytest.raises(DataError, match=rf"\(line 1001, byte {len(first) + 2}\); .* as CP1252"):
        checker.check(b"na\xefve\n")


def test_a_format_is_told_by_the_start_of_a_file_alone() -> None:
    checker = plain.Checker(Path("a.txt"))
    assert checker.check(b"text\n") + checker.check(b"%PDF-1.7\n") == "text\n%PDF-1.7\n"


# --- Several files, and the start of one ---


def test_all_files_of_a_wrong_encoding_are_named(tmp_path: Path) -> None:
    for number in range(14):
        content = "größer".encode("utf-16" if number % 2 else "latin-1")
        (tmp_path / f"{number:02}.txt").write_bytes(content)
    (tmp_path / "99.txt").write_text("größer", encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_corpus(tmp_path)
    lines = str(error.value).splitlines()
    assert [Path(line.split(": ")[0]).name for line in lines[:-1]] == [
        f"{number:02}.txt" for number in range(10)
    ]
    assert all("iconv -f CP1252" in line for line in lines[:-1:2])
    assert all("iconv -f UTF-16" in line for line in lines[1:-1:2])
    assert lines[-1] == "and 4 more files"


@settings(deadline=None)
@given(
    text=st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0")),
    size=st.integers(1, 200),
)
def test_the_start_of_a_file_is_the_start_of_its_text(
    text: str, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "start.txt"
    text = (text + "\n\r\ne\u0301 ") * 3
    path.write_bytes(text.encode())
    start, whole = read_start(path, size)
    assert plain.read_text(path).startswith(start)
    assert whole == (len(text.encode()) <= size)
    assert len(start.encode()) <= 3 * size
    assert start or size < 200
