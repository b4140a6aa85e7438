"""Values that options take: what they are by default, and which are refused."""

import math
from pathlib import Path
from typing import Any

import click

STATES = Path(".resume")  # where training keeps states of runs that are not over
MONTH = 30 * 24 * 3600  # seconds; what is to take longer is surely a slip


def path(value: str | Path) -> Path:
    """Return `value` as a path; nothing at all, as a variable that is not set gives, is refused.

    `Path("")` would be the current folder.
    """
    if not str(value).strip():
        raise click.BadParameter(f"found {str(value)!r}; allowed: a path")
    return Path(value)


def text(value: str) -> str:
    """Return `value`; nothing at all is refused, as `path` does."""
    if not value.strip():
        raise click.BadParameter(f"found {value!r}; allowed: a text, not empty")
    return value


PATH = click.types.FuncParamType(path)
TEXT = click.types.FuncParamType(text)


def number(**bounds: float) -> "click.ParamType[float]":
    """Return the type of a finite number within `bounds`, by their names in a JSON schema.

    click's own ranges take nan, which is in none, and inf where they have no end.
    """

    def convert(value: Any) -> float:
        found = click.FLOAT.convert(value, None, None)
        if (
            not math.isfinite(found)
            or found < bounds.get("minimum", -math.inf)
            or found <= bounds.get("exclusiveMinimum", -math.inf)
            or found > bounds.get("maximum", math.inf)
        ):
            from nanogpt2.config.schema import describe_allowed

            allowed = describe_allowed({**bounds, "type": "number"}).removeprefix("a number")
            raise click.BadParameter(f"found {value}; allowed: a finite number{allowed}")
        return float(found)

    kind = click.types.FuncParamType(convert)
    kind.name = "float"  # as help shows it
    return kind
