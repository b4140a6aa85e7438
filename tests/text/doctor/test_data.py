"""The command data: what of a corpus it tells, where it says that it is, and what mends it."""

# ruff: noqa: RUF001 (characters that look alike are the matter here)

import gzip
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from imports import ROOT
from preparing import assert_one_line

from nanogpt2.__main__ import main
from nanogpt2.text.doctor.show import columns

SENTENCE = "It was a dark and stormy night, and the rain fell in torrents {}.\n"
PLAIN = "".join(SENTENCE.format(number) for number in range(600))
REPEATED = "Please subscribe to our newsletter at the bottom of the page.\n"


def write(files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = Path("raw", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def data(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["data", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def examined(*arguments: str) -> dict[str, Any]:
    data("raw", "--json", "found.json", *arguments)
    return dict(json.loads(Path("found.json").read_text(encoding="utf-8")))


def finding(found: dict[str, Any], words: str) -> dict[str, Any]:
    rows = [row for row in found["findings"] if words in row["what"]]
    assert len(rows) == 1, [row["what"] for row in found["findings"]]
    return dict(rows[0])


def where(example: dict[str, Any]) -> tuple[str, int]:
    return example["first"]["path"], example["first"]["line"]


def test_a_sound_text_is_told_in_figures_and_nothing_is_wrong() -> None:
    write({"a.txt": PLAIN, "notes.md": "x"})
    found = examined()
    sources = found["sources"]
    assert (sources["files"], sources["characters"]) == (1, len(PLAIN))
    assert sources["utf8_bytes"] == len(PLAIN.encode())
    assert sources["lines"] == 600
    assert sources["passed_over"] == {".md": 1}
    assert found["characters"]["distinct"] == len(set(PLAIN))
    common = found["characters"]["commonest"][0]
    assert (common["character"], common["count"]) == (" ", PLAIN.count(" "))
    assert sum(found["scripts"].values()) == len(PLAIN)
    assert found["scripts"]["Latin"] == sum(map(str.isalpha, PLAIN))
    assert found["lines"]["median"] == len(SENTENCE.format(100)) - 1
    parts = {part["name"]: part for part in found["splits"]["parts"]}
    held_out = len(PLAIN) // 10, len(PLAIN) // 20
    assert [part["characters"] for part in parts.values()] == [
        len(PLAIN) - sum(held_out),
        *held_out,
    ]
    line = PLAIN[: parts["train"]["characters"]].count("\n") + 1
    assert where({"first": parts["val"]["begins"]}) == ("a.txt", line)
    assert [row for row in found["findings"] if "nearly" not in row["what"]] == []


def test_each_fault_is_found_with_file_line_and_switch() -> None:
    broken = b"one\nbroken \xff byte\n" + "größer\n".encode() * 40
    write(
        {
            "1.txt": PLAIN + "caf\xc3\xa9 is misread, and it\xe2\u20ac\u2122s wrong\n",
            "2.txt": "first line\nsoft\xadhyphen and \x07bell\n" + "x" * 20_000 + "\n",
            "3.txt": "Front\n*** START OF THE PROJECT GUTENBERG EBOOK X ***\nText.\n",
            "4.txt": "Ein Satz über Größe und Ähnlichkeit.\n".encode("cp1252") * 40,
            "5.txt": broken,
            "6.txt": "a lost one: \ufffd\nprivate: \ue000\nкириллица\n",
            "7.txt": b"%PDF-1.7 and so on",
            "8.txt": "A\n" + REPEATED + "B\n" + REPEATED + REPEATED,
        }
    )
    found = examined()
    mojibake = finding(found, "mojibake")
    assert mojibake["switch"] == "clean.encoding: auto"
    mended = [(example["old"], example["new"]) for example in mojibake["examples"]]
    assert mended == [("\xc3\xa9", "é"), ("\xe2\u20ac\u2122", "’")]
    assert where(mojibake["examples"][0]) == ("1.txt", 601)
    controls = finding(found, "control or invisible")
    assert controls["switch"] == "clean.control_characters: remove"
    assert {example["old"] for example in controls["examples"]} == {"\xad", "\x07"}
    assert set(map(where, controls["examples"])) == {("2.txt", 2)}
    licences = finding(found, "licence")
    assert licences["switch"] == "clean.licences: remove"
    assert where(licences["examples"][0]) == ("3.txt", 1)
    other = finding(found, "another encoding")
    assert (other["examples"][0]["old"], *where(other["examples"][0])) == ("cp1252", "4.txt", 1)
    assert other["switch"] == "clean.encoding: auto"
    assert where(finding(found, "not UTF-8")["examples"][0]) == ("5.txt", 2)
    assert where(finding(found, "lost")["examples"][0]) == ("6.txt", 1)
    assert where(finding(found, "private")["examples"][0]) == ("6.txt", 2)
    assert where(finding(found, "rare")["examples"][0]) == ("6.txt", 3)
    assert "a PDF file" in finding(found, "cannot be read")["examples"][0]["old"]
    assert where(finding(found, "10,000 characters")["examples"][0]) == ("2.txt", 3)
    lines = finding(found, "stand earlier")
    assert lines["switch"] == "clean.repeated_lines: remove"
    best = next(each for each in lines["examples"] if each["old"] + "\n" == REPEATED)
    assert (best["count"], *where(best)) == (3, "8.txt", 2)


def test_near_copies_are_found_within_and_across_splits() -> None:
    words = [f"word{number * 7919 % 10007}" for number in range(4000)]
    text = "\n".join(" ".join(words[at : at + 10]) for at in range(0, 4000, 10)) + "\n"
    passage = " ".join(words[1000:1400])  # wrapped otherwise
    changed = passage.replace("word50", "Word50")
    write({"1.txt": text, "2.txt": text.upper() + changed + "\n"})
    found = examined()
    near = found["near_copies"]
    longest = near["longest"][0]
    assert abs(longest["length"] - len(passage)) < 200
    assert longest["first"]["path"] == "2.txt"
    assert longest["source"]["path"] == "1.txt"
    assert abs(longest["source"]["line"] - 101) <= 2
    assert near["in_held_out"]
    assert finding(found, "nearly")["switch"] == "clean.near_copies: remove"
    assert found["unique_characters"] == found["sources"]["characters"] - near["characters"]
    Path("params.yaml").write_text("find_copies: false\n")
    assert examined()["near_copies"] is None


def test_a_switch_that_is_set_is_said_to_be() -> None:
    write({"a.txt": PLAIN + "bell \x07\n"})
    assert not finding(examined(), "control")["is_set"]
    Path("params.yaml").write_text("clean:\n  control_characters: remove\n")
    assert finding(examined(), "control")["is_set"]
    assert "control_characters: remove (it is)" in data("raw")


def test_records_and_archives_are_documents_too() -> None:
    records = [{"body": f"Record {n}\nhas two lines."} for n in range(150)]
    records[70]["body"] += "\nbell \x07"
    write(
        {
            "a.jsonl": "\n".join(map(json.dumps, records)),
            "b.txt.gz": gzip.compress(b"packed text\n" * 20),
        }
    )
    Path("params.yaml").write_text("text_field: body\n")
    found = examined()
    assert (found["sources"]["files"], found["sources"]["documents"]) == (2, 151)
    assert where(finding(found, "control")["examples"][0]) == ("a.jsonl#71", 3)
    assert found["splits"]["kind"] == "documents"
    parts = found["splits"]["parts"]
    assert sum(part["documents"] for part in parts) == 151
    assert sum(part["characters"] for part in parts) == found["sources"]["characters"]


@pytest.mark.parametrize(
    "text", [PLAIN, "中文字符，" * 3000 + "\n", "a\u200b\x1b[1m" * 999, "é" * 9], ids=range(4)
)
def test_what_a_terminal_shows_fits_into_100_columns_and_has_no_controls(text: str) -> None:
    write({"a.txt": text, "a/long/name/" + "of-a-file" * 20 + ".txt": text + REPEATED * 2})
    shown = data("raw")
    assert max(map(columns, shown.splitlines())) <= 100
    assert all(character == "\n" or character.isprintable() for character in shown)


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.attributes: set[str] = set()
        self.said = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.said += data


def test_the_page_needs_nothing_else_and_a_corpus_cannot_write_in_it() -> None:
    evil = "<script>alert('This is a line of forty characters and more')</script>\n"
    write({"<b>&.txt": evil * 3 + PLAIN + "bell \x07\n"})
    data("raw", "--html", "page.html")
    text = Path("page.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "b", "link", "img"} & {*page.elements}
    assert page.attributes.isdisjoint({"src", "href", "onload", "style"})
    assert "://" not in text
    assert "url(" not in text
    assert evil.strip() in page.said
    assert "mend: clean.control_characters: remove" in page.said
    assert "<b>&.txt:1" in page.said
    assert "rect" in page.elements


def test_the_result_does_not_depend_on_where_blocks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    write({"1.txt": PLAIN * 3 + "bell \x07\n", "2.txt": REPEATED * 50 + "é\n" * 90})
    expected = examined()
    monkeypatch.setattr("nanogpt2.text.survey.reading.BLOCK_BYTES", 1000)
    monkeypatch.setattr("nanogpt2.text.survey.counting.TOGETHER", 3000)
    assert examined() == expected


def test_without_a_corpus_it_is_that_of_the_parameters() -> None:
    write({"a.txt": PLAIN})
    Path("my.yaml").write_text("corpus: raw\n")
    assert data("--params", "my.yaml").startswith("raw: 1 file, ")


def test_a_corpus_or_file_that_cannot_be_is_one_line() -> None:
    assert_one_line(CliRunner().invoke(main, ["data", "gone"]), "gone", "does not exist")
    write({"a.txt": PLAIN})
    assert_one_line(CliRunner().invoke(main, ["data", "raw", "--json", "raw"]), "raw", "a folder")
    assert_one_line(CliRunner().invoke(main, ["data", "--card", "c.md"]), "dvc repro prepare")


def test_it_starts_without_torch() -> None:
    write({"a.txt": PLAIN})
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "nanogpt2", "data", "raw"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "nanogpt2.text.doctor" in done.stderr
    assert "torch" not in done.stderr
