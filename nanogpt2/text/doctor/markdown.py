"""Markdown of cards: tables, and metadata in YAML's block form."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table in Markdown, none without rows; a bar in a cell does not end it."""
    if not rows:
        return []
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines]


def yaml_lines(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield the lines of a mapping in YAML's block form; a JSON scalar is one in YAML too."""
    for key, item in value.items():
        if isinstance(item, dict):
            yield f"{indent}{key}:"
            yield from yaml_lines(item, f"{indent}  ")
        elif isinstance(item, list):
            yield f"{indent}{key}:"
            for each in item:
                within = isinstance(each, dict)
                lines = yaml_lines(each, f"{indent}  ") if within else [json.dumps(each)]
                first, *rest = lines
                yield f"{indent}- {first.strip()}"
                yield from rest
        else:
            yield f"{indent}{key}: {json.dumps(item, ensure_ascii=False)}"
