"""YAML 1.2 (https://yaml.org/spec/1.2.2) as DVC reads it: a strict loader, and edits in place.

PyYAML's own loader is YAML 1.1: it reads `1e-3` as a text, `yes` as true, and keeps the last of
two equal keys.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import ConfigError, DataError


class Yaml12Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's core schema.

    Keys are texts as they stand; a tag is an error; `mistakes` collects repeated keys.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.mistakes: list[str] = []

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None):
            problem = f"found the tag {event.tag}; allowed: values without a tag"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)


_CORE_SCHEMA = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
}
Yaml12Loader.yaml_implicit_resolvers = {}
for _name, (_pattern, _first) in _CORE_SCHEMA.items():
    Yaml12Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), list(_first)
    )


def _construct_int(loader: Yaml12Loader, node: yaml.ScalarNode) -> int | float:
    text = loader.construct_scalar(node)
    return int(text) if len(text) < 100 else math.inf  # refused as not finite


def _construct_mapping(loader: Yaml12Loader, node: yaml.MappingNode) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            problem = "found a list or a mapping as a key; allowed: a text"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
        key, line = key_node.value, key_node.start_mark.line + 1
        if key in lines:
            loader.mistakes.append(
                f"line {line}: {printable(key)} stands twice, first in line {lines[key]};"
                " allowed: once"
            )
        lines.setdefault(key, line)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


Yaml12Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
Yaml12Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


class _QuickLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The core schema with libyaml's parser, ten times as fast; it says less of mistakes."""

    yaml_implicit_resolvers = Yaml12Loader.yaml_implicit_resolvers
    yaml_constructors = Yaml12Loader.yaml_constructors

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.mistakes: list[str] = []


# What libyaml takes and PyYAML may not, or takes without the line of ours that says it is wrong
_UNUSUAL = re.compile(r"[\t\r\x85\u2028\u2029\ufeff!&*?]|[|>][-+0-9]*#|^%|- +-", re.MULTILINE)
_MOST_BRACKETS = 100  # one inside the other, too many would exhaust the stack


def read(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML 1.2 file; ConfigError with one line a mistake."""
    try:
        text = files.read_text(Path(path))
    except DataError as error:
        raise ConfigError(str(error)) from error
    return parse(text, name=str(path))


def parse(text: str, *, name: str) -> dict[str, Any]:
    """Return the mapping in YAML 1.2 `text`; ConfigError, led by `name`, a line a mistake."""
    if not _UNUSUAL.search(text) and text.count("[") + text.count("{") < _MOST_BRACKETS:
        value, mistakes = _parse_quickly(text)
        if value and not mistakes:
            return value
    try:
        loader = Yaml12Loader(text)
        found = loader.get_single_data()
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{name}: {printable(_yaml_problem(error, text))}") from error
    if loader.mistakes:
        raise ConfigError("\n".join(f"{name}: {mistake}" for mistake in loader.mistakes))
    if not isinstance(found, dict):
        what = "the file is empty" if found is None else f"found {show(found)}"
        raise ConfigError(f"{name}: {what}; allowed: `key: value` lines")
    return found


def parse_record(text: str) -> dict[str, Any]:
    """Return the mapping in YAML 1.2 `text` that a program wrote, an empty one where it is none."""
    return _parse_quickly(text)[0]


def _parse_quickly(text: str) -> tuple[dict[str, Any], list[str]]:
    """Return the mapping in `text`, an empty one where it is none, and what is said of its keys."""
    try:
        loader = _QuickLoader(text)
        value = loader.get_single_data()
    except (yaml.YAMLError, RecursionError):
        return {}, []
    return (value if isinstance(value, dict) else {}), loader.mistakes


_PROBLEMS = {  # PyYAML's words, and ours
    "found character '\\t' that cannot start any token": "found a tab; allowed: spaces",
    "found unexpected end of stream": "found the end of the file",
    "but found another document": "found a second document; allowed: one",
    "mapping values are not allowed here": "found a `:` where no key can stand",
}


def _yaml_problem(error: yaml.YAMLError | RecursionError, text: str) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"line {line}: found the control character U+{error.character:04X}; remove it"
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "found too many brackets, one inside the other"
    problem = _PROBLEMS.get(error.problem or "", error.problem)
    begun = error.context_mark if (error.context or "").startswith("while") else None
    where = f", {error.context} that begins in line {begun.line + 1}" if begun else ""
    return f"line {error.problem_mark.line + 1}: {problem}{where}"


def is_number(text: str) -> bool:
    """Return whether YAML 1.2 reads the plain `text` as a finite number."""
    numeric = any(re.fullmatch(_CORE_SCHEMA[name][0], text) for name in ("int", "float"))
    return numeric and text.strip("+-").lower() not in (".inf", ".nan")


def replace_values(text: str, values: Mapping[str, Any]) -> str:
    """Return YAML `text` with the values of top-level scalar keys replaced, the rest untouched.

    None is written as DVC's writer has it, by no value at all. Raises ConfigError where a key of
    `values` has no line with one value in `text`.
    """
    root = yaml.compose(text, Yaml12Loader)
    nodes = {key.value: node for key, node in root.value} if root else {}
    missing = [key for key in values if not isinstance(nodes.get(key), yaml.ScalarNode)]
    if missing:
        raise ConfigError(f"no line `{missing[0]}: value` in the file; add one first")
    for key in sorted(values, key=lambda key: nodes[key].start_mark.index, reverse=True):
        start, end = nodes[key].start_mark.index, nodes[key].end_mark.index
        old = text[start:end].rstrip()  # a block text ends with its newline
        text = _with_value(text[:start], values[key], text[start + len(old) :])
    return text


def _with_value(before: str, value: Any, after: str) -> str:
    """Return a text with `value` between `before`, which ends with its colon, and `after`."""
    if value is not None:
        space = " " * before.endswith(":")
        return f"{before}{space}{format_scalar(value)}{after}"
    has_remark = after.lstrip(" ").startswith("#")
    return f"{before if has_remark else before.rstrip(' ')}{after}"


def format_scalar(value: Any) -> str:
    """Return a number, boolean, text or None as a YAML 1.2 scalar; a plain word needs no quotes."""
    if isinstance(value, float):
        return re.sub(r"e([-+])0*", r"e\1", repr(value)).replace("e+", "e")
    if isinstance(value, str) and _is_plain_word(value):
        return value
    return printable(json.dumps(value, ensure_ascii=False))


def _is_plain_word(text: str) -> bool:
    """Return whether `text` is a text without quotes too, whichever version of YAML is read."""
    return bool(re.fullmatch(r"[A-Za-z][\w./-]*", text, re.ASCII)) and yaml.safe_load(text) == text


def show(value: Any) -> str:
    """Return `value` in one line of at most 60 characters, for an error."""
    shown = printable(json.dumps(value, ensure_ascii=False, default=str))
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def printable(text: str) -> str:
    """Return `text` with characters that do not print, such as newlines, as YAML's escapes."""
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in text)


def _escape(point: int) -> str:
    return f"\\u{point:04x}" if point <= 0xFFFF else f"\\U{point:08x}"
