"""Pieces of HTML. What comes from users is escaped here and nowhere else."""

from collections.abc import Iterable, Sequence
from html import escape

from nanogpt2.config.yaml12 import printable

NONE = "\N{EN DASH}"  # in a cell of which nothing is known


def text(value: object) -> str:
    """Return `value` as text of one line."""
    return escape(printable(str(value)))


def lines(value: str) -> str:
    """Return `value` as text with its line breaks and tabs, and no other control characters."""
    kept = (
        each if each in "\n\t" or each.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for each in value
    )
    return escape("".join(kept))


def written(value: str) -> str:
    """Return a text that a model wrote, in whatever direction it runs."""
    return f'<pre dir="auto">{lines(value)}</pre>'


def attributes(**values: object) -> str:
    """Return attributes of an element; `data_run` is data-run, and None or False leaves one out."""
    names = {"class_": "class", "for_": "for"}
    return "".join(
        f" {names.get(name, name.replace('_', '-'))}"
        + ("" if value is True else f'="{escape(str(value))}"')
        for name, value in values.items()
        if value is not None and value is not False
    )


def element(name: str, content: str, **values: object) -> str:
    """Return an element with `content`, which is HTML."""
    return f"<{name}{attributes(**values)}>{content}</{name}>"


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[str],
    *,
    identifier: str = "",
    sortable: bool = False,
) -> str:
    """Return a table of `rows`, which are HTML, in a box that scrolls where it is narrow."""
    heads = (f'<th scope="col"{" data-sort" if sortable else ""}>{each}</th>' for each in head)
    body = "\n".join(rows)
    return (
        f'<div class="wide" tabindex="0" role="region"{attributes(aria_label=caption)}>'
        f"<table{attributes(id=identifier or None)}><caption>{text(caption)}</caption>"
        f"<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def row(head: str, cells: Iterable[str], **values: object) -> str:
    """Return a row: its name as HTML, and its cells, whole elements."""
    return f'<tr{attributes(**values)}><th scope="row">{head}</th>{"".join(cells)}</tr>'


def cell(value: str, **values: object) -> str:
    """Return a cell of text."""
    return element("td", text(value), **values)


def number(value: float | None, shown: str, **values: object) -> str:
    """Return a cell of a number that is `shown` so; an empty one for None."""
    if value is None:
        return element("td", '<span class="value">' + NONE + "</span>", class_="number", **values)
    inner = f'<span class="value">{text(shown)}</span>'
    return element("td", inner, class_="number", data_value=repr(float(value)), **values)
