"""An examination as sections of lines and tables, which a terminal and a page show alike."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nanogpt2.base.system.words import counted
from nanogpt2.text.reading.corpus import list_kinds
from nanogpt2.text.survey.characters import RARE

FEW = 5  # examples of a finding that are shown; the JSON file has more
SHARE_TOLD = 0.001  # of the text, from which a finding tells how much it is
SOME = 8  # rows of a table of the most and the fewest

Row = Sequence[str]


@dataclass(frozen=True)
class Table:
    """A table: cells are text as it stands in the corpus, `shares` (0 .. 1) become bars."""

    head: Row
    rows: Sequence[Row]
    shares: Sequence[float] = ()
    caption: str = ""
    note: str = ""  # beside the caption: what to do


@dataclass(frozen=True)
class Section:
    """A part of what is shown."""

    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()


def title_of(found: Mapping[str, Any]) -> str:
    """Return the corpus and its size in a line."""
    sources = found["sources"]
    return (
        f"{found['corpus']}: {counted(sources['files'], 'file')}, {size(sources['bytes'])},"
        f" {sources['characters']:,} characters, {counted(sources['lines'], 'line')}"
    )


def make_sections(found: Mapping[str, Any]) -> list[Section]:
    """Return what is shown of an examination, what is wrong first."""
    return [
        _findings(found),
        _sources(found),
        _splits(found),
        _scripts(found),
        _characters(found),
        _tokens(found),
        _lines(found),
    ]


def size(n_bytes: int) -> str:
    """Return a size in the unit in which it reads best: 812 bytes, 3.4 kB, 1.2 GB."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return counted(n_bytes, "byte")


def share(part: float, whole: float) -> str:
    """Return a share in percent, with as many digits as tell it from none."""
    return f"{part / max(1, whole):.1%}"


def place(first: Mapping[str, Any]) -> str:
    """Return file and line."""
    return f"{first['path']}:{first['line']}" if first["path"] else ""


# --- Sections ---


def _findings(found: Mapping[str, Any]) -> Section:
    total = found["sources"]["characters"]
    tables = list(_finding_tables(found["findings"], total))
    lines = [
        f"{found['unique_characters']:,} characters"
        f" ({share(found['unique_characters'], total)}) are left without what stands there earlier."
    ]
    return Section("Findings", lines if tables else ["Nothing is wrong.", *lines], tables)


def _finding_tables(findings: Sequence[Mapping[str, Any]], total: int) -> Iterator[Table]:
    for finding in findings:
        caption = f"{finding['count']:,} {finding['what']}"
        if documents := finding.get("documents"):
            caption += f" in {counted(documents, 'document')}"
        if finding["characters"] >= SHARE_TOLD * total:
            caption += f", {share(finding['characters'], total)} of the text"
        is_set = " (it is)" if finding["is_set"] else ""
        note = f"mend: {finding['switch']}{is_set}" if finding["switch"] else ""
        yield Table(
            ["times", "what", "first at"],
            [_example(example) for example in finding["examples"][:FEW]],
            caption=caption,
            note=note,
        )


def _example(example: Mapping[str, Any]) -> Row:
    what = str(example["old"])
    if example["new"]:
        what += f" → {example['new']}"
    elif len(what) == 1:
        what = f"U+{ord(what):04X} in: {example['first']['text']}"
    where = place(example["first"])
    if source := example.get("source"):
        where += f" of {place(source)}"
    return [f"{example['count']:,}", what, where]


def _sources(found: Mapping[str, Any]) -> Section:
    sources = found["sources"]
    lines = [f"Read: {list_kinds(sources['kinds'])}; {counted(sources['documents'], 'document')}."]
    if sources["passed_over"]:
        lines.append(f"Passed over, not read: {list_kinds(sources['passed_over'])}.")
    rows = [
        [source["path"], f"{source['bytes']:,}", source["problem"] or source["encoding"]]
        for source in sources["largest"][:SOME]
    ]
    shares = [source["bytes"] / max(1, sources["bytes"]) for source in sources["largest"][:SOME]]
    return Section("Sources", lines, [Table(["largest files", "bytes", "encoding"], rows, shares)])


def _splits(found: Mapping[str, Any]) -> Section:
    total, parts = found["sources"]["characters"], found["splits"]["parts"]
    by_place = found["splits"]["kind"] == "contiguous"
    rows = [
        [
            part["name"],
            f"{part['characters']:,}",
            place(part["begins"]) if by_place else f"{part['documents']:,}",
        ]
        for part in parts
    ]
    shares = [part["characters"] / max(1, total) for part in parts]
    head = ["split", "characters", "begins at" if by_place else "documents"]
    return Section("Splits", list(_leaks(found, parts)), [Table(head, rows, shares)])


def _leaks(found: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    sizes = {part["name"]: part["characters"] for part in parts}
    for name, lines in found["repeated_lines"]["in_held_out"].items():
        if lines:
            yield f"{counted(lines, 'line')} of {name} stand{'s' * (lines == 1)} in train too."
    for name, characters in (found["near_copies"] or {}).get("in_held_out", {}).items():
        yield f"{share(characters, sizes[name])} of {name} is nearly a copy of train."


def _scripts(found: Mapping[str, Any]) -> Section:
    scripts, total = found["scripts"], found["sources"]["characters"]
    rows = [[name, f"{count:,}"] for name, count in scripts.items()]
    shares = [count / max(1, total) for count in scripts.values()]
    return Section("Scripts", [], [Table(["script", "characters"], rows, shares)])


def _characters(found: Mapping[str, Any]) -> Section:
    characters, total = found["characters"], found["sources"]["characters"]
    line = f"{characters['distinct']:,} different characters"
    if characters["rare"]:
        line += f", {characters['rare']:,} of them less than {RARE} times: too rare to be learnt"
    common = characters["commonest"][:SOME]
    tables = [
        Table(
            ["commonest", "", "times"],
            [[row["character"], row["name"], f"{row['count']:,}"] for row in common],
            [row["count"] / max(1, total) for row in common],
        ),
        Table(["rarest", "", "times", "first at"], _placed(characters["rarest"])),
    ]
    if characters["unusual"]:
        head = [f"unusual: {characters['n_unusual']:,}", "", "times", "first at"]
        tables.append(Table(head, _placed(characters["unusual"])))
    return Section("Characters", [f"{line}."], tables)


def _placed(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    return [
        [
            row["character"],
            f"{row['code']} {row['name']}",
            f"{row['count']:,}",
            place(row["first"]),
        ]
        for row in rows[:SOME]
    ]


def _tokens(found: Mapping[str, Any]) -> Section:
    rows = [
        [
            row["tokenizer"] + ", prepared" * bool(row["commonest"]),
            f"{row['vocabulary']:,}",
            f"{row['tokens']:,}",
            f"{row['per_byte']:.3f}",
        ]
        for row in found["tokens"]
    ]
    tables = [Table(["tokenizer", "vocabulary", "tokens", "tokens a byte"], rows)]
    for row in found["tokens"]:
        for name in ("commonest", "rarest"):
            if row[name]:
                cells = [[text, f"{count:,}"] for text, count in row[name][:SOME]]
                tables.append(Table([f"{name} of {row['tokenizer']}", "times"], cells))
    lines = [
        f"{row['unused']:,} tokens of {row['tokenizer']} stand nowhere."
        for row in found["tokens"]
        if row["commonest"] and row["unused"]
    ]
    return Section("Tokens", lines, tables)


def _lines(found: Mapping[str, Any]) -> Section:
    lines, repeated = found["lines"], found["repeated_lines"]
    says = [
        f"{lines['total']:,} lines, {lines['empty']:,} of them empty; half have at most"
        f" {lines['median']:,} characters, 90% {lines['p90']:,}, 99% {lines['p99']:,}."
    ]
    about = "about " if repeated["is_estimate"] else ""
    says.append(
        f"{about}{repeated['lines']:,} lines of 40 characters and more stand earlier too:"
        f" {about}{repeated['characters']:,} characters."
    )
    rows = [
        [f"{row['count']:,}", row["first"]["text"], place(row["first"])]
        for row in repeated["commonest"][:SOME]
    ]
    return Section("Lines", says, [Table(["times", "repeated", "first at"], rows)])
