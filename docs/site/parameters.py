"""The page of parameters, made of schemas/params.schema.json and the headings of params.yaml."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HEAD = """# Parameters

Every key of `params.yaml`: what it means, what it may be, its default where a file leaves it out,
and what the project's own `params.yaml` has. A key in a group has a dot in its name, for
`dvc exp run -S sample.temperature=0.5`. What to try first is in the
[training guide](training.md#tips).
"""


def describe_parameters(root: Path) -> str:
    """Return the page of the project at `root`."""
    from nanogpt2.config import yaml12

    schema = json.loads((root / "schemas/params.schema.json").read_text(encoding="utf-8"))
    text = (root / "params.yaml").read_text(encoding="utf-8")
    here, lines = yaml12.parse(text, name="params.yaml"), [HEAD]
    for title, keys in sections(text):
        lines.append(f"## {title}\n")
        for key in keys:
            lines += describe(key, schema["properties"][key], here[key])
    return "\n".join(lines) + "\n"


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the headings of params.yaml, comments alone on a line, with the keys under each."""
    for part in re.split(r"(?m)^\n(?=# )", text)[1:]:
        title = re.split(r"[.:]", part.splitlines()[0].removeprefix("# "))[0]
        yield title, re.findall(r"(?m)^(\w+):", part)


def describe(key: str, rule: Mapping[str, Any], value: Any) -> Iterator[str]:
    """Yield the lines of a key, and of those in its group."""
    if "properties" in rule:
        yield f"{rule['description']}\n"
        for name, inner in rule["properties"].items():
            yield from describe(f"{key}.{name}", inner, value[name])
        return
    facts = [f"allowed: {allowed(rule)}", f"default: {show(rule.get('default'))}"]
    if value != rule.get("default"):
        facts.append(f"here: {show(value)}")
    yield f"### `{key}` {{ #{key} }}\n"
    yield re.sub(r"docs/(\w+)\.md", r"[\1](\1.md)", escape(rule["description"])) + "\n"
    yield "; ".join(facts) + "\n{ .facts }\n"


def allowed(rule: Mapping[str, Any]) -> str:
    """Return in words what a rule of the schema allows."""
    for kind in ("anyOf", "oneOf"):
        if kind in rule:
            return ", or ".join(allowed(each) for each in rule[kind])
    if "enum" in rule:
        return ", ".join(show(each) for each in rule["enum"])
    if "const" in rule:
        return show(rule["const"])
    kinds = rule.get("type", "any")
    names = {"null": "empty", "string": "text", "array": "list", "boolean": "true or false"}
    words = " or ".join(names.get(k, k) for k in ([kinds] if isinstance(kinds, str) else kinds))
    bounds = {
        "minimum": "at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
    }
    limits = [line.format(f"{rule[name]:,}") for name, line in bounds.items() if name in rule]
    return ", ".join([words, *limits])


def show(value: Any) -> str:
    return "empty" if value is None or value == "" else f"`{json.dumps(value)}`"


def escape(text: str) -> str:
    """Return `text` without what Markdown would take for more than letters."""
    return re.sub(r"([<>*_|\[\]])", r"\\\1", text)
