"""An examination on a terminal, in at most 100 columns."""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nanogpt2.config.yaml12 import printable
from nanogpt2.text.doctor.sections import Section, Table, make_sections, title_of

WIDTH = 100
BAR = 20  # columns of a whole one
INDENT = "  "
LEAST = 8  # columns that are left of a cell


def show(found: Mapping[str, Any]) -> str:
    """Return the examination `found` as lines of at most 100 columns."""
    lines = [fit(printable(title_of(found)), WIDTH)]
    for section in make_sections(found):
        lines += ["", section.title.upper(), *_show_section(section)]
    return "\n".join(line.rstrip() for line in lines)


def _show_section(section: Section) -> Iterator[str]:
    for line in section.lines:
        yield fit(INDENT + line, WIDTH)
    for table in section.tables:
        if table.rows:
            yield from _show_table(table)


def _show_table(table: Table) -> Iterator[str]:
    if table.caption:
        caption = fit(INDENT + table.caption, WIDTH - len(table.note) - 2)
        yield pad(caption, WIDTH - len(table.note) - 2) + f"  {table.note}"
    rows = [[printable(cell) for cell in row] for row in table.rows]
    right = [all(map(is_number, cells)) for cells in zip(*rows, strict=True)]
    bars = _bars(table.shares)
    if not table.caption:
        rows = [list(table.head), *rows]
        bars = ["", *bars]
    indent = INDENT * (2 if table.caption else 1)
    widths = _widths(rows, WIDTH - len(indent) - (BAR + 10) * bool(table.shares))
    for at, row in enumerate(rows):
        cells = [
            pad(fit(cell, width), width, right=is_right)
            for cell, width, is_right in zip(row, widths, right, strict=True)
        ]
        yield indent + "  ".join(cells) + (f"  {bars[at]}" if table.shares else "")


def _bars(shares: Sequence[float]) -> list[str]:
    """Return each share in percent, and a bar, of which the largest is a whole one."""
    largest = max(shares, default=0) or 1
    return [f"{share:6.1%}  {'█' * round(BAR * share / largest)}" for share in shares]


def _widths(rows: Sequence[Sequence[str]], room: int) -> list[int]:
    """Return the columns of each cell: what it needs, the widest cut where there is no room."""
    widths = [max(map(columns, cells)) for cells in zip(*rows, strict=True)]
    while sum(widths) + 2 * (len(widths) - 1) > room and max(widths) > LEAST:
        widths[widths.index(max(widths))] -= 1
    return widths


def is_number(cell: str) -> bool:
    """Return whether a cell is a figure, which stands on the right."""
    return cell.replace(",", "").replace(".", "").isdecimal()


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes: two for a Chinese character."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, width: int) -> str:
    """Return `text` cut to `width` columns, with dots where something is left out."""
    if columns(text) <= width:
        return text
    while columns(text) > width - 3:
        text = text[:-1]
    return text + "..."


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Return `text` with spaces up to `width` columns."""
    space = " " * (width - columns(text))
    return space + text if right else text + space
