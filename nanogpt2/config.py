"""The configuration: params.yaml and the presets, checked against schemas/params.schema.json.

The schema is the one truth on names, types, ranges, defaults and meaning; the dataclasses below
give its keys a type in code.
"""

import dataclasses
import difflib
import json
import math
from collections import OrderedDict
from collections.abc import Container, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nanogpt2 import files, yaml12
from nanogpt2.errors import ConfigError
from nanogpt2.yaml12 import is_number, printable, show

SCHEMA_PATH = Path(__file__).parent.parent / "schemas" / "params.schema.json"
PRESETS_PATH = Path(__file__).parent / "presets"

# Facts of the machine and knobs of other stages; a trained weight depends on none of them.
NOT_TRAINING = frozenset(
    {"corpus", "device", "evaluate", "sample"}
    | {"save_checkpoint", "checkpoint_interval", "checkpoint_dir"}
)

# What the switch `architecture` sets, where the key itself is null.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {
        "bias": True,
        "positions": "learned",
        "norm": "layer",
        "qk_norm": False,
        "mlp": "gelu",
        "tied_head": True,
        "zero_init": False,
        "logit_softcap": 0.0,
    },
    "modern": {
        "bias": False,
        "positions": "rotary",
        "norm": "rms",
        "qk_norm": True,
        "mlp": "relu2",
        "tied_head": False,
        "zero_init": True,
        "logit_softcap": 0.0,
    },
}


@dataclass(frozen=True)
class EvaluateConfig:
    """Knobs of the evaluate stage; the schema describes each."""

    batch_size: int
    stride: int | None
    memorisation_samples: int
    memorisation_tokens: int
    memorisation_temperature: float
    memorisation_seed: int


@dataclass(frozen=True)
class SampleConfig:
    """Knobs of the sample stage; the schema describes each."""

    prompt: str | None
    prompt_file: str
    num_samples: int
    max_new_tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float
    stop: list[str]
    window: str
    seed: int


@dataclass(frozen=True)
class Config:
    """A complete, valid configuration; the schema describes each key.

    `config["learning_rate"]` answers too. Made by `get_config`, never by hand. It is pickled as an
    OrderedDict, so that `torch.save` writes plain data, which `weights_only=True` reads.
    """

    corpus: str
    tokenizer: str
    val_fraction: float
    test_fraction: float
    seed: int
    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    dropout: float
    attention_dropout: float | None
    architecture: str
    bias: bool | None
    positions: str | None
    norm: str | None
    qk_norm: bool | None
    mlp: str | None
    n_kv_head: int | None
    tied_head: bool | None
    zero_init: bool | None
    logit_softcap: float | None
    batch_size: int
    gradient_accumulation_steps: int
    max_iters: int
    optimizer: str
    learning_rate: float
    muon_learning_rate: float
    schedule: str
    decay_fraction: float
    min_learning_rate_fraction: float
    warmup_iters: int
    weight_decay: float
    beta1: float
    beta2: float
    ema_decay: float
    patience: int
    grad_clip: float
    on_nonfinite: str
    eval_interval: int
    eval_iters: int
    mixed_precision: bool
    deterministic: bool
    device: str
    save_checkpoint: bool
    checkpoint_interval: int
    checkpoint_dir: str
    evaluate: EvaluateConfig
    sample: SampleConfig

    def __getitem__(self, key: str) -> Any:
        if key not in self.__dataclass_fields__:
            raise KeyError(key)
        return getattr(self, key)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as plain nested dicts."""
        return dataclasses.asdict(self)

    def resolved(self) -> "Config":
        """Return the configuration with every part of the architecture that is null filled in."""
        parts = {
            **ARCHITECTURES[self.architecture],
            "n_kv_head": self.n_head,
            "attention_dropout": self.dropout,
        }
        return dataclasses.replace(
            self, **{key: value for key, value in parts.items() if getattr(self, key) is None}
        )

    def training_dict(self) -> dict[str, Any]:
        """Return the keys on which the trained weights depend."""
        return {key: value for key, value in self.to_dict().items() if key not in NOT_TRAINING}

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), None, None, iter(self.to_dict().items())

    def __deepcopy__(self, memo: dict[int, Any]) -> "Config":
        return self


def get_config(source: str | Path | Mapping[str, Any], **overrides: Any) -> Config:
    """Return the configuration of a preset (nano, small, base), a YAML file or a mapping.

    Keys that the source does not give take the schema's default; `overrides` come last.
    Raises ConfigError with one line for each key that is wrong.
    """
    if isinstance(source, Mapping):
        return make_config({**source, **overrides}, name="configuration")
    name, values = read_values(source)
    return make_config({**values, **overrides}, name=name)


def read_values(source: str | Path) -> tuple[str, dict[str, Any]]:
    """Return the file name and the unchecked values of a preset or a YAML file."""
    path = preset_path(source) or Path(source)
    if not path.suffix and not path.exists():
        raise ConfigError(f"{path}: no such file or preset; presets: {', '.join(preset_names())}")
    return path.name, yaml12.read(path)


def preset_path(name: str | Path) -> Path | None:
    """Return the file of the preset `name`, or None where there is no such preset."""
    path = PRESETS_PATH / f"{name}.yaml"
    return path if str(name) in preset_names() else None


@cache
def preset_names() -> list[str]:
    """Return the names of the presets, sorted."""
    return sorted(path.stem for path in PRESETS_PATH.glob("*.yaml"))


def make_config(values: Mapping[str, Any], *, name: str) -> Config:
    """Check `values`, fill in defaults and return the configuration; `name` leads each error."""
    values = _plain(values)
    errors = find_errors(values)
    if errors:
        raise ConfigError("\n".join(f"{name}: {key}: {text}" for key, text in errors.items()))
    return complete(values)


def complete(values: Mapping[str, Any]) -> Config:
    """Return the configuration of valid `values`, the schema's defaults for the rest."""
    fields = with_defaults(values)
    for key, group in {"evaluate": EvaluateConfig, "sample": SampleConfig}.items():
        fields[key] = group(**fields[key])
    return Config(**fields)


def _plain(value: Any) -> Any:
    """Return `value` with a Config or another mapping in it as dicts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


@cache
def load_schema() -> dict[str, Any]:
    """Return the JSON schema of params.yaml."""
    schema: dict[str, Any] = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    return schema


def with_defaults(values: Mapping[str, Any], schema: Any = None) -> dict[str, Any]:
    """Return valid `values` in the schema's order and number types, with defaults filled in."""
    properties = (schema or load_schema())["properties"]
    complete = {}
    for key, rule in properties.items():
        value = values.get(key, rule["default"])
        if rule.get("type") == "object":
            value = with_defaults(value, rule)
        elif "integer" in rule.get("type", ()) and value is not None:
            value = int(value)  # 1000.0 counts as 1000
        elif "number" in rule.get("type", ()) and value is not None:
            value = float(value)
        elif rule.get("type") == "array":
            value = list(value)
        complete[key] = value
    return complete


# --- What is wrong with a set of values: one line a key ---


def find_errors(values: Mapping[str, Any]) -> dict[str, str]:
    """Return what is wrong, by key in full, such as `sample.seed`."""
    errors = dict(schema_errors(values))
    right = with_defaults(without(values, errors))
    return errors | dict(cross_errors(right, wrong=errors.keys()))


def without(values: Mapping[str, Any], keys: Container[str], group: str = "") -> dict[str, Any]:
    """Return `values`, those of `group`, less `keys`, which are given in full."""
    return {
        key: without(value, keys, f"{key}.") if isinstance(value, Mapping) else value
        for key, value in values.items()
        if f"{group}{key}" not in keys
    }


def schema_errors(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for each key whose name, type or range is wrong."""
    import jsonschema  # slow to import, and not needed by `--help`

    validator = jsonschema.Draft202012Validator(load_schema())
    for name in sorted(not_finite := set(_not_finite(values))):
        yield name, "found a number that is not finite; allowed: a finite number"
    for error in validator.iter_errors(values):
        path = [printable(str(key)) for key in error.absolute_path]
        name = ".".join(path)
        if error.validator == "additionalProperties":
            yield from _unknown_names(error.instance, error.schema["properties"], path)
        elif name not in not_finite:
            yield name, _wrong_value(error.instance, error.schema)


def _not_finite(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _not_finite(item, f"{name}.{key}".lstrip("."))
    elif isinstance(value, float) and not math.isfinite(value):
        yield name


def _unknown_names(
    values: Mapping[Any, Any], known: Mapping[str, Any], path: list[str]
) -> Iterator[tuple[str, str]]:
    for key in values:
        if key not in known:
            near = _nearest_name(str(key), path)
            advice = f"did you mean {near}?" if near else f"allowed: {', '.join(sorted(known))}"
            yield ".".join([*path, printable(str(key))]), f"unknown key; {advice}"


def _nearest_name(key: str, path: list[str]) -> str | None:
    """Return in words the known key most like `key`, in its own group or else in another."""
    key = key.lower().replace("-", "_").rpartition(".")[2]
    top = load_schema()["properties"]
    groups = {(): top} | {(k,): v["properties"] for k, v in top.items() if "properties" in v}
    for group in sorted(groups, key=lambda group: (group != tuple(path), key not in groups[group])):
        begins = [name for name in groups[group] if len(key) > 2 and name.startswith(key)]
        for match in begins or difflib.get_close_matches(key, groups[group], n=1):
            if group == tuple(path):
                return ".".join([*path, match])
            return f"{match} in the group {group[0]}" if group else f"{match} outside {path[0]}"
    return None


def _wrong_value(value: Any, rule: Mapping[str, Any]) -> str:
    hint = ""
    if isinstance(value, str) and rule.get("type") in ("number", "integer") and is_number(value):
        hint = " (without quotes)"
    return f"found {show(value)}; allowed: {describe_allowed(rule)}{hint}"


def describe_allowed(rule: Mapping[str, Any]) -> str:
    """Return in words what a schema rule allows, such as `an integer, at least 1`."""
    if "enum" in rule:
        return ", ".join(value or "null" for value in rule["enum"])
    words = {
        "integer": "an integer",
        "number": "a number",
        "boolean": "true or false",
        "string": "a text, not empty" if "minLength" in rule else "a text",
        "null": "null",
        "object": "keys with values",
        "array": "a list of texts",
    }
    types = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
    bounds = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
    }
    limits = [f"{text} {rule[bound]}" for bound, text in bounds.items() if bound in rule]
    return ", ".join([" or ".join(words[name] for name in types), *limits])


def cross_errors(
    values: Mapping[str, Any], *, wrong: AbstractSet[str]
) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for each rule that `values`, apart from `wrong` keys, break."""
    n_embd, n_head = values["n_embd"], values["n_head"]
    if n_embd % n_head and not {"n_embd", "n_head"} & wrong:
        divisors = ", ".join(str(n) for n in range(1, min(n_embd, 128) + 1) if n_embd % n == 0)
        yield "n_head", f"found {n_head}; allowed: a divisor of n_embd {n_embd}: {divisors}"
    n_kv_head = values["n_kv_head"]
    if n_kv_head and n_head % n_kv_head and not {"n_kv_head", "n_head"} & wrong:
        yield "n_kv_head", f"found {n_kv_head}; allowed: a divisor of n_head {n_head}, or null"
    positions = values["positions"] or ARCHITECTURES[values["architecture"]]["positions"]
    if positions == "rotary" and n_embd % (2 * n_head) and not {"n_embd", "n_head"} & wrong:
        yield "n_head", f"found {n_head}; allowed: one that leaves n_embd / n_head even (rotary)"
    val, test = values["val_fraction"], values["test_fraction"]
    if val + test >= 1 and not {"val_fraction", "test_fraction"} & wrong:
        yield (
            "test_fraction",
            f"found {test:g}, which with val_fraction {val:g} leaves no text for training;"
            " allowed: a sum below 1",
        )
    vocab_size = values["vocab_size"]
    if values["tokenizer"] == "byte" and vocab_size < 256 and "vocab_size" not in wrong:
        yield (
            "vocab_size",
            f"found {vocab_size}; allowed: at least 256, the size of the byte tokenizer",
        )


def use_preset(name: str, path: Path) -> list[str]:
    """Write the values of the preset `name` into the YAML file `path`; return the changes in words.

    Comments, order and every other line stay as they are. The result is checked before it is
    written; raises ConfigError.
    """
    preset = preset_path(name)
    if preset is None:
        raise ConfigError(f"unknown preset {name}; allowed: {', '.join(preset_names())}")
    old, new = yaml12.read(path), yaml12.read(preset)
    changed = {key: value for key, value in new.items() if old.get(key) != value}
    text = yaml12.replace_values(files.read_text(path), changed)
    make_config(yaml12.parse(text, name=path.name), name=path.name)
    files.write_text(path, text)
    return [
        f"{key}: {show(old[key])} -> {yaml12.format_scalar(value)}"
        for key, value in changed.items()
    ]
