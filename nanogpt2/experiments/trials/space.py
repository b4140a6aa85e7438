"""What a sweep tries: the values of each `-S key=...`, their grid, and what is wrong with them.

A value is written as `dvc exp run -S` has it; several are a list with commas, as Hydra's
(https://hydra.cc/docs/advanced/override_grammar/extended), or one of `FORMS`.
"""

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.base.system.words import name_some
from nanogpt2.config import yaml12
from nanogpt2.config.schema import find_errors, load_schema, schema_errors, without

FORMS = {
    "choice": "choice(a,b,...)",
    "range": "range(start,stop,step), without stop",
    "log": "log(first,last,count)",
    "uniform": "uniform(low,high)",
    "loguniform": "loguniform(low,high)",
}
COUNTS = {"range": (2, 3), "log": (3,), "uniform": (2,), "loguniform": (2,)}  # of their numbers
MOST = 10_000  # trials of a grid
PAIRS = {"(": ")", "[": "]", "{": "}"}

Setting = tuple[str, ...]  # the `key=value` of a trial, as they go to `dvc exp run -S`


@dataclass(frozen=True)
class Axis:
    """A key and what it may be: `texts`, one after another, or a number from `low` to `high`."""

    key: str
    texts: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def drawn(self) -> bool:
        """Return whether its values are drawn, not listed."""
        return not self.texts

    def show(self, value: float) -> str:
        """Return a drawn number as it is written: four digits are enough to choose by."""
        return str(round(value)) if self.whole else f"{value:.4g}"


@dataclass
class Space:
    """The axes of a sweep, in the order in which they were given."""

    axes: dict[str, Axis] = field(default_factory=dict)

    def grid(self) -> list[Setting]:
        """Return every combination, the last key changing first; ConfigError where none is whole.

        One that is listed twice is there once.
        """
        if drawn := [axis.key for axis in self.axes.values() if axis.drawn]:
            raise ConfigError(f"{drawn[0]}: values are drawn from a range in a search: --search N")
        count = math.prod(len(axis.texts) for axis in self.axes.values())
        if count > MOST:
            raise ConfigError(f"found {count:,} trials; allowed: at most {MOST:,}: --search N")
        rows = itertools.product(*(axis.texts for axis in self.axes.values()))
        return list(
            dict.fromkeys(tuple(map("=".join, zip(self.axes, row, strict=True))) for row in rows)
        )

    @property
    def varied(self) -> list[str]:
        """Return the keys that have more than one value."""
        return [axis.key for axis in self.axes.values() if len(axis.texts) != 1]


def read_space(settings: Iterable[str], file: Path | None = None) -> Space:
    """Return the space of `-S` texts and of a YAML file; all mistakes in one ConfigError.

    The file has keys as params.yaml has them, and for each a value, a list, or one of `FORMS`.
    """
    pairs, mistakes = list(_pairs_of(yaml12.read(file)) if file else ()), list[str]()
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            mistakes.append(f"found {setting}; allowed: key=value")
        else:
            pairs.append((key.strip(), text.strip()))
    space = Space()
    for key, text in pairs:
        try:
            if key in space.axes:
                raise ConfigError("stands twice; allowed: once")
            space.axes[key] = read_axis(key, text)
        except ConfigError as error:
            mistakes.append(f"{key}: {error}")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return space


def _pairs_of(values: Mapping[str, Any], group: str = "") -> Iterable[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _pairs_of(value, f"{group}{key}.")
        elif isinstance(value, list):
            yield f"{group}{key}", ",".join(map(_as_text, value))
        elif isinstance(value, str) and re.match(rf"({'|'.join(FORMS)})\(.*\)$", value):
            yield f"{group}{key}", value
        else:
            yield f"{group}{key}", _as_text(value)


def _as_text(value: Any) -> str:
    """Return a value of a YAML file as `-S` has it."""
    if isinstance(value, list):
        return f"[{','.join(map(_as_text, value))}]"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z][\w./-]*", value, re.ASCII):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return "null" if value is None else yaml12.format_scalar(value)


def read_axis(key: str, text: str) -> Axis:
    """Return what `text` says of the values of `key`; ConfigError without the key."""
    found = re.fullmatch(rf"({'|'.join(FORMS)})\((.*)\)", text)
    if not found:
        return Axis(key, _listed(text))
    form, parts = found[1], split(found[2])
    if form == "choice":
        return Axis(key, _listed(found[2]))
    whole = "integer" in _types(key)
    try:
        numbers = [Decimal(part) for part in parts]
        if len(numbers) not in COUNTS[form] or not all(map(math.isfinite, map(float, numbers))):
            raise ValueError
        wrong = _wrong_bound(form, *numbers)
    except (ArithmeticError, ValueError) as error:
        raise ConfigError(f"found {text}; allowed: {FORMS[form]}") from error
    if wrong:
        shown = FORMS[form].removesuffix(", without stop")
        raise ConfigError(f"found {text}; allowed: {shown} with {wrong}")
    if form == "range":
        return Axis(key, _range(*numbers))
    low, high = (float(number) for number in numbers[:2])
    if form == "log":
        return Axis(key, _log(low, high, int(numbers[2]), whole=whole))
    return Axis(key, low=low, high=high, log=form == "loguniform", whole=whole)


def _wrong_bound(form: str, low: Decimal, high: Decimal, last: Decimal = Decimal(1)) -> str:
    """Return in words what a bound of a form has to be and is not; "" where all are right."""
    if form == "range":
        if not last:
            return "a step other than 0"
        if (high - low) / last <= 0:
            return f"a stop {'above' if last > 0 else 'below'} start"
        return f"at most {MOST:,} numbers" if (high - low) / last > MOST else ""
    names = FORMS[form].partition("(")[2].rstrip(")").split(",")
    if form != "uniform":
        for name, bound in zip(names, (low, high), strict=False):
            if float(bound) <= 0:  # to which the smallest are rounded
                return f"{name} above 0"
    if form == "log":
        return "" if last in range(2, MOST + 1) else f"a whole count from 2 to {MOST:,}"
    return "" if low < high else "low below high"


def _types(key: str) -> Sequence[str]:
    """Return the types that the schema gives a key in full; none where it has no such key."""
    rule: Any = load_schema()
    for part in key.split("."):
        rule = rule.get("properties", {}).get(part, {})
    kind = rule.get("type", ())
    return [kind] if isinstance(kind, str) else list(kind)


def _listed(text: str) -> tuple[str, ...]:
    parts = tuple(split(text))
    if len(parts) > 1 and not all(parts):
        raise ConfigError(f"found {text}; allowed: a value between commas")
    return parts


def _range(start: Decimal, stop: Decimal, step: Decimal = Decimal(1)) -> tuple[str, ...]:
    """Return the numbers from `start` to `stop`, without it, exactly as decimals."""
    count = math.ceil((stop - start) / step)
    return tuple(f"{(start + n * step).normalize():f}" for n in range(count))


def _log(low: float, high: float, count: int, *, whole: bool) -> tuple[str, ...]:
    """Return `count` numbers from `low` to `high`, each the same factor from the next."""
    found = [low * (high / low) ** (n / (count - 1)) for n in range(count)]
    return tuple(dict.fromkeys(str(round(x)) if whole else f"{x:.4g}" for x in found))


def split(text: str) -> list[str]:
    """Return the parts of `text` between commas that no quotes or brackets hold."""
    parts, open_ones, quote, escaped = [""], list[str](), "", False
    for char in text:
        if char == "," and not open_ones and not quote:
            parts.append("")
            continue
        parts[-1] += char
        if quote:
            quote = "" if char == quote and not escaped else quote
            escaped = char == "\\" and not escaped
        elif char in "'\"":
            quote = char
        elif char in PAIRS:
            open_ones.append(PAIRS[char])
        elif open_ones and char == open_ones[-1]:
            open_ones.pop()
    return [part.strip() for part in parts]


# --- Against the schema ---


def apply(values: Mapping[str, Any], setting: Iterable[str]) -> dict[str, Any]:
    """Return the values of params.yaml with those of a trial; ConfigError for a value unread."""
    changed = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    for each in setting:
        key, _, text = each.partition("=")
        group, dot, name = key.partition(".")
        inner = changed.get(group)
        if dot and isinstance(inner, dict):
            inner[name] = read_value(text)
        else:
            changed[key] = read_value(text)
    return changed


def read_value(text: str) -> Any:
    """Return the value that DVC takes from behind the `=`."""
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return re.sub(r"\\(['\"\\])", r"\1", text[1:-1])
    if text.lower() in ("true", "false", "null"):
        text = text.lower()
    return yaml12.parse(f"value: {text}", name=text)["value"]


def check_settings(values: Mapping[str, Any], settings: Sequence[Setting]) -> None:
    """Raise ConfigError naming, once each, what is wrong in any of `settings` of params.yaml."""
    found: dict[str, list[Setting]] = {}
    for setting in settings:
        try:
            errors = find_errors(apply(values, setting))
            lines = [f"{key}: {text}" for key, text in errors.items()]
        except ConfigError as error:
            lines = str(error).splitlines()
        for line in lines:
            found.setdefault(line, []).append(setting)
    if found:
        raise ConfigError("\n".join(_describe(line, those) for line, those in found.items()))


def _describe(line: str, settings: Sequence[Setting]) -> str:
    where = [" ".join(setting) for setting in settings if setting]
    return f"{line} (with {name_some(where, 1)})" if where else line


def check_search(values: Mapping[str, Any], space: Space) -> None:
    """Raise ConfigError where a value that a search may draw breaks a rule on its key alone."""
    lines = list[str]()
    for axis in space.axes.values():
        ends = [axis.show(axis.low), axis.show(axis.high)] if axis.drawn else axis.texts
        if axis.drawn and not {"integer", "number"} & set(_types(axis.key)) and _types(axis.key):
            lines.append(f"{axis.key}: found a range of numbers; allowed: choice(a,b,...)")
            continue
        for text in ends:
            changed = apply(without(values, {axis.key}), [f"{axis.key}={text}"])
            errors = dict(schema_errors(changed))
            lines += [f"{key}: {errors[key]}" for key in errors if key == axis.key]
    if lines:
        raise ConfigError("\n".join(dict.fromkeys(lines)))
