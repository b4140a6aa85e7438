"""An examination as one HTML page that needs nothing else: no network, no script, no other file."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from nanogpt2.config.yaml12 import printable
from nanogpt2.text.doctor.sections import Section, Table, make_sections, title_of
from nanogpt2.text.doctor.show import is_number

STYLE = """
:root { color-scheme: light dark; --line: #d8d8d8; --soft: #666; --bar: #3b73b9; --mend: #a04000 }
@media (prefers-color-scheme: dark) {
  :root { --line: #444; --soft: #aaa; --bar: #6fa8e8; --mend: #f0a060 }
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.3em } h2 { font-size: 1.1em; margin: 2em 0 .4em }
h1, td, th { overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100%; margin: .6em 0 1.2em }
caption { text-align: left; font-weight: 600; padding: .3em 0 }
caption code { color: var(--mend); font-weight: 400; margin-left: 1em }
th { text-align: left; font-weight: 400; color: var(--soft) }
td, th { padding: .15em .8em .15em 0; border-bottom: 1px solid var(--line); vertical-align: top }
td { font-family: ui-monospace, monospace; font-size: .87em; unicode-bidi: plaintext }
.number { text-align: right; white-space: nowrap; width: 6em }
td.bar { width: 11em } svg { display: block; margin-top: .3em } rect { fill: var(--bar) }
"""
BAR = 160  # pixels of a whole one


def make_page(found: Mapping[str, Any]) -> str:
    """Return the page of the examination `found`."""
    title = escape(printable(title_of(found)))
    body = "\n".join(line for section in make_sections(found) for line in _section(section))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n{body}\n</html>\n"
    )


def _section(section: Section) -> Iterator[str]:
    yield f"<h2>{escape(section.title)}</h2>"
    for line in section.lines:
        yield f"<p>{escape(printable(line))}</p>"
    for table in section.tables:
        if table.rows:
            yield from _table(table)


def _table(table: Table) -> Iterator[str]:
    yield "<table>"
    if table.caption:
        note = f"<code>{escape(table.note)}</code>" if table.note else ""
        yield f"<caption>{escape(printable(table.caption))}{note}</caption>"
    bars = '<th class="number">share</th><th></th>' if table.shares else ""
    columns = zip(table.head, zip(*table.rows, strict=True), strict=True)
    heads = (_cell(head, "th", number=all(map(is_number, cells))) for head, cells in columns)
    yield "<tr>" + "".join(heads) + bars + "</tr>"
    largest = max(table.shares, default=0) or 1
    for at, row in enumerate(table.rows):
        bar = _bar(table.shares[at], largest) if table.shares else ""
        cells = (_cell(cell, "td", number=is_number(cell)) for cell in row)
        yield "<tr>" + "".join(cells) + bar + "</tr>"
    yield "</table>"


def _cell(cell: str, element: str, *, number: bool) -> str:
    kind = ' class="number"' if number else ""
    return f"<{element}{kind}>{escape(printable(cell))}</{element}>"


def _bar(share: float, largest: float) -> str:
    return (
        f'<td class="number">{share:.1%}</td><td class="bar"><svg width="{BAR}" height="12">'
        f'<rect width="{max(1, round(BAR * share / largest))}" height="12"/></svg></td>'
    )
