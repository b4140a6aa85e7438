"""How quickly text is read: brought to its form, unpacked, and taken out of records.

    python benchmarks/reading.py

Each row times two ways in turn in one process, in its own CPU time, and prints the median of both
and their ratio. The other way: for `normalise`, one regular expression and one call of unicodedata
for the whole text; for records, Python's own reader of JSON; for archives, the quickest library
that is installed (isal for gzip).
"""

# ruff: noqa: RUF001 (letters that look alike are the matter here)

import gzip
import json
import re
import statistics
import sys
import tempfile
import time
import unicodedata
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from nanogpt2.text.reading.plain import Checker
from nanogpt2.text.reading.records import read_records
from nanogpt2.text.reading.shakespeare import shakespeare_text
from nanogpt2.text.reading.streams import BLOCK_BYTES, ZSTD, open_bytes, open_utf8
from nanogpt2.tokens.normal import normalise

PAIRS = 5
NEWLINES = re.compile("\r\n|[\r\x85\u2028\u2029]")
SENTENCES = {  # from article 1 of the Universal Declaration of Human Rights
    "French": "Tous les êtres humains naissent libres et égaux en dignité et en droits.\n",
    "Russian": "Все люди рождаются свободными и равными в своём достоинстве и правах.\n",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।\n",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心。\n",
}


def plain_rule(text: str) -> str:
    """Return what `normalise` gives, by the rule as it is written."""
    return unicodedata.normalize("NFC", NEWLINES.sub("\n", text.lstrip("\ufeff")))


def compare(
    name: str, size: float, ours: Callable[[], object], other: Callable[[], object]
) -> None:
    """Print MB a second of both, where each reads `size` bytes, and how much quicker ours is."""
    times: dict[Callable[[], object], list[float]] = {ours: [], other: []}
    for _ in range(PAIRS):
        for way, spent in times.items():
            start = time.process_time()
            way()
            spent.append(time.process_time() - start)
    fast, slow = (size / 1e6 / statistics.median(times[way]) for way in (ours, other))
    print(f"{name:30} {fast:8.0f} {slow:8.0f} MB/s   {fast / slow:6.2f} times", flush=True)


def compare_forms(text: str) -> None:
    """Compare how texts of several scripts are normalised."""
    texts = {"ASCII": text, "ASCII, lines of Windows": text.replace("\n", "\r\n")}
    texts |= {name: line * 40_000 for name, line in SENTENCES.items()}
    texts["French, decomposed"] = unicodedata.normalize("NFD", texts["French"])
    # Unicode keeps this letter decomposed, so that Python looks at all that is near it
    texts["Hindi, one mark a line"] = texts["Hindi"].replace("\n", " ड\u093c\n")
    texts["Hindi, one mark in 1,000 lines"] = (SENTENCES["Hindi"] * 999 + "ड\u093c\n") * 40
    for name, each in texts.items():
        assert normalise(each) == plain_rule(each)
        size = len(each.encode())
        compare(f"form: {name}", size, partial(normalise, each), partial(plain_rule, each))


def read_blocks(path: Path, *, any_encoding: bool = False) -> None:
    """Read a file as a preparation does: unpacked, checked and normalised."""
    checker = Checker(path)
    with open_utf8(path, any_encoding=any_encoding) as file:
        while block := file.read(BLOCK_BYTES):
            normalise(checker.check(block + file.readline()))


def drain(path: Path) -> None:
    with open_bytes(path) as file:
        while file.read(BLOCK_BYTES):
            pass


def compare_files(text: str, folder: Path) -> None:
    """Compare how plain and packed files are read."""
    content = text.encode() * 8
    plain, packed, latin = (folder / name for name in ("a.txt", "a.txt.gz", "latin.txt"))
    plain.write_bytes(content)
    packed.write_bytes(gzip.compress(content, 6))
    latin.write_bytes((SENTENCES["French"] * 300_000).encode("cp1252"))
    look = partial(read_blocks, any_encoding=True)
    compare(
        "file: plain, and looked into",
        len(content),
        partial(read_blocks, plain),
        partial(look, plain),
    )
    compare(
        "file: CP1252, and Python's",
        latin.stat().st_size,
        partial(look, latin),
        partial(latin.read_text, "cp1252"),
    )
    try:
        isal = import_module("isal.igzip")
    except ImportError:
        print("gzip: isal is not installed")
    else:
        other = partial(isal.decompress, packed.read_bytes())
        compare("gzip, and isal", len(content), partial(drain, packed), other)
    zstd = import_module(ZSTD)
    small = folder / "a.txt.zst"
    small.write_bytes(zstd.compress(content))
    compare("zstd, and gzip", len(content), partial(drain, small), partial(drain, packed))


def compare_records(text: str, folder: Path) -> None:
    """Compare the readers of JSON on short and long records."""
    path, speeches = folder / "a.jsonl", text.split("\n\n") * 2

    def read() -> None:
        for _ in read_records(path):
            pass

    def with_json() -> None:
        sys.modules["orjson"] = None  # type: ignore[assignment]
        try:
            read()
        finally:
            del sys.modules["orjson"]

    for name, step in (("speech", 1), ("scene", 40)):
        texts = ["\n\n".join(speeches[at : at + step]) for at in range(0, len(speeches), step)]
        path.write_text("".join(json.dumps({"id": 1, "text": each}) + "\n" for each in texts))
        compare(f"records: a {name} each", path.stat().st_size, read, with_json)


def main() -> None:
    text = shakespeare_text()
    compare_forms(text)
    with tempfile.TemporaryDirectory() as folder:
        compare_files(text, Path(folder))
        compare_records(text, Path(folder))


if __name__ == "__main__":
    main()
