"""ci/thresholds.yaml: how much worse each figure may be, checked against its schema."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config import yaml12
from nanogpt2.config.schema import NOT_FINITE, find_not_finite, load_schema

SCHEMA = "schemas/thresholds.schema.json"
NOISE = "noise"
ALLOWED = "noise, a number that is at least 0, or a share such as 2%"


@dataclass(frozen=True)
class Acceptance:
    """A worse figure that is taken on purpose: what it may come to, and why."""

    figure: float
    because: str


Acceptances = dict[tuple[str, str], Acceptance | None]  # by file and key


@dataclass(frozen=True)
class Threshold:
    """One figure of a metrics file, and how much worse than the base's it may be."""

    file: str
    key: str  # such as val.loss
    lower_is_better: bool
    allowed: str | float  # "noise", a share such as "2%", or a number in the figure's unit
    accept: Acceptance | None

    @property
    def name(self) -> str:
        """Return the figure's name as tables have it; that of eval.json needs no file."""
        return self.key if self.file == "metrics/eval.json" else f"{self.file}: {self.key}"


@dataclass(frozen=True)
class Thresholds:
    """All that ci/thresholds.yaml says."""

    noise: str  # a path
    chance: float
    metrics: tuple[Threshold, ...]

    def of_noise(self) -> list[Threshold]:
        """Return those whose allowance is measured."""
        return [each for each in self.metrics if each.allowed == NOISE]

    def acceptances(self) -> Acceptances:
        """Return the acceptance of each figure."""
        return {(each.file, each.key): each.accept for each in self.metrics}

    def allowances(self) -> "Thresholds":
        """Return the same without acceptances."""
        return replace(self, metrics=tuple(replace(each, accept=None) for each in self.metrics))


def read_thresholds(path: str) -> Thresholds:
    """Return what the file says; ConfigError with one line a mistake."""
    return make_thresholds(yaml12.read(path), name=path)


def parse_thresholds(text: str, *, name: str) -> Thresholds:
    """Return what `text` says; ConfigError, led by `name`, with one line a mistake."""
    return make_thresholds(yaml12.parse(text, name=name), name=name)


def make_thresholds(values: Mapping[str, Any], *, name: str) -> Thresholds:
    """Return what `values` say; ConfigError, led by `name`, with one line a mistake."""
    if wrong := dict(find_mistakes(values)):
        raise ConfigError("\n".join(f"{name}: {key}: {what}" for key, what in wrong.items()))
    defaults = {key: rule.get("default") for key, rule in load_schema(SCHEMA)["properties"].items()}
    values = defaults | dict(values)
    metrics = tuple(
        Threshold(file, key, each["better"] == "lower", each["allowed"], _accepted(each))
        for file, figures in values["metrics"].items()
        for key, each in figures.items()
    )
    return Thresholds(values["noise"], float(values["chance"]), metrics)


def _accepted(values: Mapping[str, Any]) -> Acceptance | None:
    accept = values.get("accept")
    return Acceptance(float(accept["figure"]), accept["because"]) if accept else None


def find_mistakes(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (key in full, what is wrong there)."""
    import jsonschema  # slow to import, and not needed by `--help`

    validator = jsonschema.Draft202012Validator(load_schema(SCHEMA))
    for place in find_not_finite(values):
        yield _full(place), NOT_FINITE
    for error in validator.iter_errors(values):
        path = [yaml12.printable(str(key)) for key in error.absolute_path]
        if error.validator == "additionalProperties":
            known = list(error.schema["properties"])
            for key in error.instance.keys() - {*known}:
                yield _full([*path, key]), f"unknown key; allowed: {', '.join(known)}"
        elif error.validator == "required":
            for key in set(error.validator_value) - {*error.instance}:
                allowed = _describe(error.schema["properties"][key])
                yield _full([*path, key]), f"is missing; allowed: {allowed}"
        else:
            found = yaml12.show(error.instance)
            yield _full(path), f"found {found}; allowed: {_describe(error.schema)}"


def _full(path: Sequence[str]) -> str:
    return ": ".join(path) or "the file"


def _describe(rule: Mapping[str, Any]) -> str:
    """Return in words what a rule of the schema allows."""
    if "enum" in rule:
        return " or ".join(rule["enum"])
    if "pattern" in rule:
        return ALLOWED
    if rule["type"] == "number":
        below = f", above {rule['exclusiveMinimum']} and below {rule['exclusiveMaximum']}"
        return "a number" + below * ("exclusiveMinimum" in rule)
    return {"string": "a text, not empty", "object": "keys with values"}[rule["type"]]
