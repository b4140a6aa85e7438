"""The configuration: params.yaml and the presets, checked against schemas/params.schema.json.

The schema is the one truth on names, types, ranges, defaults and meaning; the dataclasses below
give its keys a type in code.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any, SupportsIndex

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config import yaml12
from nanogpt2.config.groups import CleanConfig, EvaluateConfig, SampleConfig
from nanogpt2.config.schema import ARCHITECTURES, find_errors, with_defaults, without
from nanogpt2.config.yaml12 import show

TORCH_SAVES_WITH = 2  # pickle's protocol in torch.save; all others use a later one
PRESETS_PATH = Path(__file__).parents[1] / "presets"

SCRATCH = "scratch"  # the init_from of a run with new weights

# Facts of the machine and knobs of other stages; a trained weight depends on none of them.
PREPARE_KEYS = ("split", "separator", "text_field", "find_copies", "clean")
NOT_TRAINING = frozenset(
    {"corpus", "init_from", "device", "compile", "num_processes", "parallel", "evaluate", "sample"}
    | {"save_checkpoint", "checkpoint_interval", "checkpoint_dir", "log_to", *PREPARE_KEYS}
)


@dataclass(frozen=True)
class Config:
    """A complete, valid configuration; the schema describes each key.

    `config["learning_rate"]` answers too. Made by `get_config`, never by hand. `torch.save`
    writes it as plain data, which `weights_only=True` reads.
    """

    corpus: str
    tokenizer: str
    val_fraction: float
    test_fraction: float
    split: str
    separator: str
    text_field: str
    find_copies: bool
    clean: CleanConfig
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
    mlp_conv: int | None
    n_kv_head: int | None
    tied_head: bool | None
    zero_init: bool | None
    logit_softcap: float | None
    init_from: str
    freeze: list[str]
    layer_decay: float
    lora_rank: int
    teachers: list[str]
    teacher_weight: float
    teachers_per_step: int
    teacher_temperature: float
    batch_size: int
    gradient_accumulation_steps: int
    shards: int
    sampling: str
    max_iters: int
    optimizer: str
    learning_rate: float
    muon_learning_rate: float
    mtp_weight: float
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
    precision: str | None
    deterministic: bool
    device: str
    compile: bool
    num_processes: int
    parallel: str
    save_checkpoint: bool
    checkpoint_interval: int
    checkpoint_dir: str
    log_to: str | None
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
        """Return the configuration with every key that is null for another's sake filled in."""
        parts = {
            **ARCHITECTURES[self.architecture],
            "n_kv_head": self.n_head,
            "attention_dropout": self.dropout,
            "precision": "auto" if self.mixed_precision else "fp32",
        }
        return dataclasses.replace(
            self, **{key: value for key, value in parts.items() if getattr(self, key) is None}
        )

    def training_dict(self) -> dict[str, Any]:
        """Return the keys on which the trained weights depend."""
        return {key: value for key, value in self.to_dict().items() if key not in NOT_TRAINING}

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        if int(protocol) == TORCH_SAVES_WITH:
            return OrderedDict, (), None, None, iter(self.to_dict().items())
        return complete, (self.to_dict(),)

    def __copy__(self) -> "Config":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Config":
        return self


GROUPS = {"clean": CleanConfig, "evaluate": EvaluateConfig, "sample": SampleConfig}

# What a model is built from. zero_init and seed choose its first weights alone.
MODEL_KEYS = (
    *("vocab_size", "block_size", "n_layer", "n_head", "n_kv_head", "n_embd"),
    *("dropout", "attention_dropout", "bias", "positions", "norm", "qk_norm", "mlp"),
    *("mlp_conv", "tied_head", "logit_softcap"),
)


def check_same_model(model: Config, config: Config) -> None:
    """Raise ConfigError naming the keys by which `config` asks for another model than `model`."""
    built, asked = model.resolved(), config.resolved()
    differing = [
        f"{key}: {built[key]} in the model, {asked[key]} in the configuration"
        for key in MODEL_KEYS
        if built[key] != asked[key]
    ]
    if differing:
        raise ConfigError("; ".join(differing) + ": make the model of the same one, GPT(config)")


def get_config(source: "str | Path | Mapping[str, Any] | Config", **overrides: Any) -> Config:
    """Return the configuration of a preset (nano, small, base), a YAML file or a mapping.

    Keys that the source does not give take the schema's default; `overrides` come last.
    Raises ConfigError with one line for each key that is wrong.
    """
    if isinstance(source, Config):
        source = source.to_dict()
    if isinstance(source, Mapping):
        return make_config({**source, **overrides}, name="configuration")
    if not isinstance(source, str | Path):
        raise ConfigError(
            f"configuration: found {type(source).__name__}; allowed: a preset's name, a path, or"
            " keys with values"
        )
    name, values = read_values(source)
    return make_config({**values, **overrides}, name=name)


def read_values(source: str | Path) -> tuple[str, dict[str, Any]]:
    """Return the file name and the unchecked values of a preset or a YAML file."""
    path = preset_path(source) or Path(source)
    if not path.suffix and not files.exists(path):
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
    for key, group in GROUPS.items():
        fields[key] = group(**fields[key])
    return Config(**fields)


def _plain(value: Any) -> Any:
    """Return `value` with a Config or another mapping in it as dicts."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):  # NumPy's numbers too
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def describe_left_out(source: str | Path, *, beside: Path) -> str | None:
    """Name the keys that `source` leaves out and the file `beside` has another value for.

    None where there are none, or no such file. What is only a fact of the machine does not count.
    """
    name, values = read_values(source)
    if not beside.is_file():
        return None
    taken, other = (_result_values(each) for each in (values, yaml12.read(beside)))
    given = _flat(values)
    differing = [
        f"{key}: {show(value)}, not {show(other[key])}"
        for key, value in taken.items()
        if key not in given and other[key] != value
    ]
    if not differing:
        return None
    return (
        f"{name} leaves out keys that {beside} has; defaults of the schema serve:"
        f" {'; '.join(differing)}"
    )


def _result_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return every value on which results depend, by key in full; wrong ones are left out."""
    config = complete(without(values, find_errors(values)))
    others = {key: config.to_dict()[key] for key in (*PREPARE_KEYS, "corpus", "evaluate", "sample")}
    return _flat(config.training_dict() | others)


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values with those of groups under their keys in full, such as `sample.seed`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = value.items() if isinstance(value, Mapping) else ()
        flat |= {f"{key}.{name}": each for name, each in inner} or {key: value}
    return flat


def use_preset(name: str, path: str | Path) -> list[str]:
    """Write the values of the preset `name` into the YAML file `path`; return the changes in words.

    Comments, order and every other line stay as they are. The result is checked before it is
    written; raises ConfigError.
    """
    preset = preset_path(name)
    if preset is None:
        raise ConfigError(f"unknown preset {name}; allowed: {', '.join(preset_names())}")
    return set_values(path, yaml12.read(preset))


def set_values(path: str | Path, new: Mapping[str, Any]) -> list[str]:
    """Write the values `new` into the YAML file `path`; return the changes in words.

    As `use_preset` does.
    """
    path = Path(path)
    old = yaml12.read(path)
    changed = {key: value for key, value in new.items() if old.get(key) != value}
    text = yaml12.replace_values(files.read_text(path), changed)
    make_config(yaml12.parse(text, name=path.name), name=path.name)
    files.write_text(path, text)
    return [f"{key}: {show(old[key])} -> {show(value)}" for key, value in changed.items()]
