"""Values that options take: what they are by default, and which are refused."""

from pathlib import Path

import click

STATES = Path(".resume")  # where training keeps states of runs that are not over


def path(value: str | Path) -> Path:
    """Return `value` as a path; nothing at all, as a variable that is not set gives, is refused.

    `Path("")` would be the current folder.
    """
    if not str(value).strip():
        raise click.BadParameter(f"found {str(value)!r}; allowed: a path")
    return Path(value)


PATH = click.types.FuncParamType(path)
