"""The import graph of the project, read from its sources."""

import ast
from collections.abc import Set
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent


def module_path(name: str) -> Path | None:
    """Return the file of the project's module `name`, relative to the root, or None."""
    base = Path(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if (ROOT / path).is_file() and base.parts[0] in ("nanogpt2", "stages"):
            return path
    return None


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Return all nodes of the syntax tree of a file, by its path from the root."""
    return [*ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))]


@cache
def direct_imports(path: Path) -> frozenset[Path]:
    """Return the project's files that `path` imports anywhere in its source."""
    names = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found for name in names if (found := module_path(name)))


def all_imports(path: Path, *, without: Set[Path] = frozenset()) -> set[Path]:
    """Return `path` and every module of the project that running it imports.

    Those in `without`, and what they alone import, are left out.
    """
    found, waiting = set(), {path}
    while waiting:
        current = waiting.pop()
        found.add(current)
        waiting |= {p for p in direct_imports(current) if p.name != "__init__.py"} - found - without
    return found
