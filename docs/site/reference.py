"""The page of the API: the modules that docs/api.md names, from their docstrings, not imported."""

import re
from pathlib import Path

HEAD = """# API

From the docstrings of what [the library](api.md) names, module by module. Whatever begins with an
underscore is ours to change.
"""


def describe_modules(root: Path) -> str:
    """Return the page for the project at `root`."""
    names = re.findall(r"nanogpt2(?:\.\w+)+", (root / "docs/api.md").read_text(encoding="utf-8"))
    front = (root / "nanogpt2/__init__.py").read_text(encoding="utf-8")
    names += [f"nanogpt2.{place}" for place in re.findall(r'": "(\w+\.\w+)"', front)]
    found = {module for name in names if (module := module_of(name, root))}
    lines = [HEAD]
    for room in sorted({module.split(".")[1] for module in found}):
        lines.append(f"## {room}\n")
        lines += [f"::: {name}\n" for name in sorted(found) if name.split(".")[1] == room]
    return "\n".join(lines)


def module_of(name: str, root: Path) -> str | None:
    """Return the module of a room that `name` is in, None where it names a room or a short way."""
    parts = name.split(".")[:3]
    return (
        ".".join(parts)
        if len(parts) == 3 and root.joinpath(*parts).with_suffix(".py").is_file()
        else None
    )
