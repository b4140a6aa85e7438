"""The schema of params.yaml: its defaults, and what is wrong with a set of values.

schemas/params.schema.json is the one truth on names, types, ranges, defaults and meaning; rules
across keys stand in `cross_errors`.
"""

import difflib
import json
import math
from collections.abc import Container, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path
from typing import Any

from nanogpt2.config.yaml12 import is_number, printable, show

LIBRARY = Path(__file__).parents[1]
SCHEMA = "schemas/params.schema.json"  # in an installed library, or beside it in a checkout
NOT_FINITE = "found a number that is not finite; allowed: a finite number"

# Tokenizers by name; what has a slash or a dot is a path.
TOKENIZERS = ("char", "byte", "bpe", "gpt2", "from_init")
SMALLEST = {"byte": 256, "bpe": 256, "gpt2": 50_257}  # vocab_size

BATCH_KEYS = ("batch_size", "gradient_accumulation_steps")
BATCH = " x ".join(BATCH_KEYS)

# What the switch `architecture` sets, where the key itself is null.
GPT2: dict[str, Any] = {
    "bias": True,
    "positions": "learned",
    "norm": "layer",
    "qk_norm": False,
    "mlp": "gelu",
    "mlp_conv": 0,
    "tied_head": True,
    "zero_init": False,
    "logit_softcap": 0.0,
}
MODERN: dict[str, Any] = {
    "bias": False,
    "positions": "rotary",
    "norm": "rms",
    "qk_norm": True,
    "mlp": "gelu",
    "mlp_conv": 0,
    "tied_head": False,
    "zero_init": True,
    "logit_softcap": 15.0,
}
ARCHITECTURES = {
    "gpt2": GPT2,
    "modern": MODERN,
    "qwen3": MODERN | {"mlp": "swiglu", "logit_softcap": 0.0},
}


@cache
def load_schema(name: str = SCHEMA) -> dict[str, Any]:
    """Return a JSON schema, that of params.yaml unless another is named."""
    installed = LIBRARY / name
    path = installed if installed.is_file() else LIBRARY.parent / name
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
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


def flatten(values: Mapping[str, Any], group: str = "") -> dict[str, Any]:
    """Return `values`, those of `group`, by key in full: {"sample": {"seed": 1}} as sample.seed."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{group}{key}.")
        else:
            flat[f"{group}{key}"] = value
    return flat


def schema_errors(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for each key whose name, type or range is wrong."""
    import jsonschema  # slow to import, and not needed by `--help`

    validator = jsonschema.Draft202012Validator(load_schema())
    not_finite = {".".join(place) for place in find_not_finite(values)}
    for name in sorted(not_finite):
        yield name, NOT_FINITE
    for error in validator.iter_errors(values):
        path = [printable(str(key)) for key in error.absolute_path]
        name = ".".join(path)
        if error.validator == "additionalProperties":
            yield from _unknown_names(error.instance, error.schema["properties"], path)
        elif name not in not_finite:
            yield name, _wrong_value(error.instance, error.schema)


def find_not_finite(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the keys that lead to each number that is not finite."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from find_not_finite(item, (*place, str(key)))
    elif isinstance(value, float) and not math.isfinite(value):
        yield place


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
    for group in sorted(groups, key=lambda group: (key not in groups[group], group != tuple(path))):
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
        return ", ".join("null" if value is None else str(value) for value in rule["enum"])
    if "examples" in rule:
        return f"{', '.join(rule['examples'])}, or a path"
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


def parallel_errors(
    values: Mapping[str, Any], *, wrong: AbstractSet[str]
) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for each rule on several processes that `values` break."""
    processes = values["num_processes"]
    if processes > 1 and values["device"] == "mps" and not {"num_processes", "device"} & wrong:
        yield "num_processes", f"found {processes}; allowed: 1 with device mps"
    elif (text := describe_unequal(values, processes)) and not (
        {"num_processes", "shards", *BATCH_KEYS} & wrong
    ):
        yield "num_processes", text


def shard_errors(
    values: Mapping[str, Any], *, wrong: AbstractSet[str]
) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for each rule on canonical shards that `values` break."""
    shards, windows = values["shards"], windows_per_step(values)
    if shards == 1 or "shards" in wrong:
        return
    if windows % shards and not {*BATCH_KEYS} & wrong:
        fitting = [n for n in load_schema()["properties"]["shards"]["enum"] if windows % n == 0]
        rule = f"a divisor of {BATCH} {windows}: {', '.join(map(str, fitting))}"
        yield "shards", f"found {shards}; allowed: {rule}"
    if not values["deterministic"] and "deterministic" not in wrong:
        yield "deterministic", f"found false; allowed: true with shards {shards}"
    if values["parallel"] == "fsdp" and "parallel" not in wrong:
        rule = f"ddp with shards {shards}, since fsdp adds up in an order of its own"
        yield "parallel", f"found fsdp; allowed: {rule}"


def tuning_errors(
    values: Mapping[str, Any], *, wrong: AbstractSet[str]
) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for each rule on fine-tuning that `values` break."""
    if not values["lora_rank"] or "lora_rank" in wrong:
        return
    if values["freeze"] and "freeze" not in wrong:
        yield "freeze", "found weights; allowed: [] with lora_rank, which freezes all but its own"
    if values["precision"] == "fp8" and "precision" not in wrong:
        yield "precision", "found fp8; allowed: auto, fp32, bf16 or fp16 with lora_rank"
    if values["parallel"] == "fsdp" and "parallel" not in wrong:
        yield "parallel", "found fsdp; allowed: ddp with lora_rank, whose sums need whole matrices"


def tokenizer_errors(
    values: Mapping[str, Any], *, wrong: AbstractSet[str]
) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for each rule on the tokenizer that `values` break."""
    name, vocab_size = values["tokenizer"], values["vocab_size"]
    if "tokenizer" not in wrong and name not in TOKENIZERS and not is_path(name):
        path = f"or the path of a tokenizer.json or its folder, such as ./{printable(name)}"
        advice = "; `python -m nanogpt2 tokenizer` finds the best" if name == "auto" else ""
        yield "tokenizer", f"found {show(name)}; allowed: {', '.join(TOKENIZERS)}, {path}{advice}"
    least = SMALLEST.get(name, 0)
    if vocab_size < least and "vocab_size" not in wrong:
        yield (
            "vocab_size",
            f"found {vocab_size}; allowed: at least {least}, the size of the {name} tokenizer",
        )


def is_path(tokenizer: str) -> bool:
    """Return whether the value of the key `tokenizer` is a path, and not a name."""
    return any(mark in tokenizer for mark in "./\\")


def windows_per_step(values: Mapping[str, Any]) -> int:
    """Return how many sequences one step of the optimizer sees."""
    return math.prod(values[key] for key in BATCH_KEYS)


def describe_unequal(values: Mapping[str, Any], processes: int) -> str | None:
    """Say in words that so many processes cannot share a batch equally; None where they can."""
    parts, name = windows_per_step(values), BATCH
    if values["shards"] > 1:
        parts, name = values["shards"], "shards"
    if parts % processes == 0:
        return None
    divisors = ", ".join(str(n) for n in range(2, min(parts, 128) + 1) if parts % n == 0)
    return f"found {processes}; allowed: a divisor of {name} {parts}: {divisors or 1}"


def cross_errors(
    values: Mapping[str, Any], *, wrong: AbstractSet[str]
) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong) for each rule that `values`, apart from `wrong` keys, break."""
    n_embd, n_head = values["n_embd"], values["n_head"]
    positions = values["positions"] or ARCHITECTURES[values["architecture"]]["positions"]
    pairs = positions == "rotary"  # which turns pairs of a head's channels
    step = 2 if pairs else 1
    if n_embd % (step * n_head) and not {"n_embd", "n_head"} & wrong:
        fitting = [n for n in range(1, min(n_embd, 128) + 1) if n_embd % (step * n) == 0]
        rule = f"a divisor of {f'half of n_embd {n_embd}' if pairs else f'n_embd {n_embd}'}"
        listed = ", ".join(map(str, fitting)) or "none: make n_embd even"
        yield "n_head", f"found {n_head}; allowed: {rule}: {listed}"
    n_kv_head = values["n_kv_head"]
    if n_kv_head and n_head % n_kv_head and not {"n_kv_head", "n_head"} & wrong:
        yield "n_kv_head", f"found {n_kv_head}; allowed: a divisor of n_head {n_head}, or null"
    yield from tuning_errors(values, wrong=wrong)
    yield from parallel_errors(values, wrong=wrong)
    yield from shard_errors(values, wrong=wrong)
    val, test = values["val_fraction"], values["test_fraction"]
    if val + test >= 1 and not {"val_fraction", "test_fraction"} & wrong:
        yield (
            "test_fraction",
            f"found {test:g}, which with val_fraction {val:g} leaves no text for training;"
            " allowed: a sum below 1",
        )
    yield from tokenizer_errors(values, wrong=wrong)
