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
    names += [f"nanogpt2.{place}" for place in re.findall(r'": "(\w+(?:\.\w+)+)"', front)]
    found = {module for name in names if (module := module_of(name, root))}
    lines = [HEAD]
    for wing in sorted({module.split(".")[1] for module in found}):
        lines.append(f"## {wing}\n")
        lines += [f"::: {name}\n" for name in sorted(found) if name.split(".")[1] == wing]
    return "\n".join(lines)


def module_of(name: str, root: Path) -> str | None:
    """Return the module of a room that `name` is in, None where it names none of one."""
    parts = name.split(".")
    ways = [parts[:count] for count in range(3, len(parts) + 1)]
    found = [way for way in ways if root.joinpath(*way).with_suffix(".py").is_file()]
    return ".".join(found[0]) if found else None
