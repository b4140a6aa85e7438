"""Arguments of the library: what callers give, brought to one type or refused in one line."""

import operator
from typing import Any

from nanogpt2.base.system.errors import ConfigError


def whole_number(name: str, value: Any, *, least: int, most: int | None = None) -> int:
    """Return `value` as an int; ConfigError where it is no integer from `least` to `most`."""
    bounds = f"at least {least}" if most is None else f"from {least} to {most}"
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ConfigError(f"{name}: found {value!r}; allowed: an integer, {bounds}") from error
    if isinstance(value, bool) or number < least or (most is not None and number > most):
        raise ConfigError(f"{name}: found {value!r}; allowed: an integer, {bounds}")
    return number


def text(name: str, value: Any) -> str:
    """Return `value`; ConfigError where it is no text."""
    if not isinstance(value, str):
        raise ConfigError(f"{name}: found {type(value).__name__}; allowed: a text (str)")
    return value
