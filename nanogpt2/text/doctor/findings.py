"""Findings: what is wrong with a corpus, how often, where, and the switch that mends it."""

from collections.abc import Callable, Iterator
from typing import Any

from nanogpt2.config.groups import CleanConfig
from nanogpt2.text.survey.characters import Kind, find_unusual
from nanogpt2.text.survey.copies import NearCopies
from nanogpt2.text.survey.counting import Counted, Source
from nanogpt2.text.survey.faults import Fault
from nanogpt2.text.survey.lines import LONG, Lengths, Repetition
from nanogpt2.text.survey.places import Shown
from nanogpt2.text.survey.reading import UTF8

EXAMPLES = 20  # of each finding, and of each list
ENCODING, CONTROLS = "clean.encoding: auto", "clean.control_characters: remove"
LICENCES, REPEATED = "clean.licences: remove", "clean.repeated_lines: remove"
NEAR = "clean.near_copies: remove"
NAMES = {
    ENCODING: "place(s) in a wrong encoding (mojibake)",
    CONTROLS: "control or invisible character(s)",
    LICENCES: "licence block(s) or boilerplate",
}


def describe_findings(
    found: Counted,
    kinds: list[Kind],
    repetition: Repetition,
    near: NearCopies | None,
    shown: Shown,
    clean: CleanConfig,
) -> list[dict[str, Any]]:
    """Return each finding as plain data; `clean` has the switches that are set."""
    rows = [
        *_file_findings(found.sources),
        *(_fault_finding(fault, shown) for fault in found.faults if fault.tally.documents),
        *_line_findings(found.lengths, repetition, shown),
        *(_near_finding(near, shown) if near and near.passages else ()),
        *_character_findings(kinds, shown),
    ]
    return [row | {"is_set": _is_set(row["switch"], clean)} for row in rows]


def _is_set(switch: str, clean: CleanConfig) -> bool:
    key, _, value = switch.removeprefix("clean.").partition(": ")
    return bool(switch) and getattr(clean, key) == value


def _finding(
    what: str, count: int, characters: int, switch: str, examples: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "what": what.replace("(s)", "s" * (count != 1)),
        "count": count,
        "characters": characters,
        "switch": switch,
        "examples": examples,
    }


def _file_findings(sources: list[Source]) -> Iterator[dict[str, Any]]:
    def files_of(some: list[Source], why: Callable[[Source], str]) -> list[dict[str, Any]]:
        return [
            {"old": why(source), "new": "", "count": 1, "first": _file_place(source)}
            for source in some[:EXAMPLES]
        ]

    if unread := [source for source in sources if source.problem]:
        rows = files_of(unread, lambda source: source.problem)
        yield _finding("file(s) that cannot be read", len(unread), 0, "", rows)
    if others := [source for source in sources if source.encoding != UTF8]:
        rows = files_of(others, lambda source: source.encoding)
        size = sum(source.characters for source in others)
        yield _finding("file(s) in another encoding than UTF-8", len(others), size, ENCODING, rows)


def _file_place(source: Source) -> dict[str, Any]:
    return {"path": source.path, "line": 1, "text": ""}


def _fault_finding(fault: Fault, shown: Shown) -> dict[str, Any]:
    rows = [
        {"kind": e.kind, "old": e.old, "new": e.new, "count": e.count, "first": shown(e.first)}
        for e in fault.examples()[:EXAMPLES]
    ]
    tally = fault.tally
    places = tally.places.total()
    row = _finding(NAMES[fault.switch], places, tally.characters, fault.switch, rows)
    return row | {"documents": tally.documents, "kinds": tally.to_dict()["places"]}


def _line_findings(
    lengths: Lengths, repetition: Repetition, shown: Shown
) -> Iterator[dict[str, Any]]:
    if repetition.lines:
        rows = [
            {"old": shown(e.first)["text"], "new": "", "count": e.count, "first": shown(e.first)}
            for e in repetition.commonest
        ]
        size = repetition.characters
        yield _finding("line(s) that stand earlier too", repetition.lines, size, REPEATED, rows)
    if lengths.long:
        rows = [
            {"old": f"{n:,} characters", "new": "", "count": 1, "first": shown(start)}
            for n, start in lengths.longest
        ]
        size = sum(n for n, _ in lengths.longest)
        yield _finding(f"line(s) of {LONG:,} characters and more", lengths.long, size, "", rows)


def _near_finding(near: NearCopies, shown: Shown) -> Iterator[dict[str, Any]]:
    rows = [
        {
            "old": f"{passage.length:,} characters: {shown(passage.start)['text']}",
            "new": "",
            "count": 1,
            "first": shown(passage.start),
            "source": shown(passage.source),
        }
        for passage in near.longest
    ]
    what = "passage(s) that stand nearly so earlier"
    yield _finding(what, near.passages, near.characters, NEAR, rows)


def _character_findings(kinds: list[Kind], shown: Shown) -> Iterator[dict[str, Any]]:
    unusual = find_unusual(kinds)
    for what, reasons in {
        "character(s) lost by an earlier program (U+FFFD)": {"lost"},
        "byte(s) that are not UTF-8": {"not in the encoding"},
        "letter(s) of scripts that are rare here": {"rare script"},
        "private or unassigned character(s)": {"private use", "unassigned"},
    }.items():
        odd = [kind for kind in kinds if unusual.get(kind.character) in reasons]
        if odd:
            rows = [
                {"old": kind.character, "new": "", "count": kind.count, "first": shown(kind.first)}
                for kind in odd[:EXAMPLES]
            ]
            total = sum(kind.count for kind in odd)
            yield _finding(what, total, total, "", rows)
