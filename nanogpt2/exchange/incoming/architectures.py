"""Architectures of transformers that compute exactly what our GPT does, and the way there and back.

Pure functions of a config.json and tensors. To add an architecture, add its entry to the table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nanogpt2.base.system.errors import CheckpointError, ConfigError
from nanogpt2.config.config import MODEL_KEYS, Config, complete
from nanogpt2.config.schema import find_errors
from nanogpt2.config.yaml12 import printable, show
from nanogpt2.exchange.incoming import configs, layouts, nanochat
from nanogpt2.exchange.incoming.layouts import Layout

Knobs = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Architecture:
    """A class of transformers, which of our models it computes, and how each is written in it."""

    class_name: str
    knobs: Knobs  # what the keys of a model's parts may be
    export_config: Callable[[Config], dict[str, Any]]
    import_config: Callable[[Mapping[str, Any]], dict[str, Any]]
    layout: Callable[[Config], Layout]
    constants: Callable[[Config], dict[str, Tensor]] = layouts.rotary_constants
    prefix: str = "model."  # of all names but the head's
    slides: bool = False  # past the block as our model does
    past_block: str = "past block_size it sees all tokens so far, and ours the last block_size"


LIKE_LLAMA: Knobs = {
    "positions": ("rotary",),
    "norm": ("rms",),
    "mlp_conv": (0,),
    "logit_softcap": (0.0,),
    "bias": (False,),
}
BIASED = LIKE_LLAMA | {"bias": (False, True)}
TWO_LAYERS = ("gelu", "relu2")
ACTS = (*configs.GELU, "relu2")
NO_WEIGHTS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")  # masks and angles

# By model_type; the first that fits a model is taken.
ARCHITECTURES = {
    "gpt2": Architecture(
        "GPT2LMHeadModel",
        {
            "positions": ("learned",),
            "norm": ("layer",),
            "qk_norm": (False,),
            "mlp": TWO_LAYERS,
            "mlp_conv": (0,),
            "logit_softcap": (0.0,),
        },
        configs.export_gpt2,
        configs.import_gpt2,
        layouts.gpt2_layout,
        layouts.gpt2_constants,
        prefix="transformer.",
        past_block="it reads no text longer than block_size, past which ours slides",
    ),
    "qwen3": Architecture(
        "Qwen3ForCausalLM",
        LIKE_LLAMA | {"mlp": ("swiglu",), "qk_norm": (True,)},
        configs.export_qwen3,
        partial(configs.import_rotary, mlps=("silu",), qk_norm=True, biased=False),
        partial(layouts.rotary_layout, modules=layouts.GATED),
        slides=True,
        past_block="past block_size it slides as ours does, but for prompts longer than that",
    ),
    "llama": Architecture(
        "LlamaForCausalLM",
        BIASED | {"mlp": ("swiglu",), "qk_norm": (False,)},
        configs.export_biased,
        partial(configs.import_rotary, mlps=("silu",), qk_norm=False, biased=True),
        partial(layouts.rotary_layout, modules=layouts.GATED),
    ),
    "arcee": Architecture(
        "ArceeForCausalLM",
        BIASED | {"mlp": TWO_LAYERS, "qk_norm": (False,)},
        configs.export_biased,
        partial(configs.import_rotary, mlps=ACTS, qk_norm=False, biased=True),
        partial(layouts.rotary_layout, modules=layouts.PLAIN),
    ),
    "apertus": Architecture(
        "ApertusForCausalLM",
        LIKE_LLAMA | {"mlp": TWO_LAYERS, "qk_norm": (True,)},
        configs.export_rotary,
        partial(configs.import_rotary, mlps=ACTS, qk_norm=True, biased=False),
        partial(layouts.rotary_layout, modules=layouts.APERTUS),
    ),
    "nanochat": Architecture(
        "NanoChatForCausalLM",
        {key: LIKE_LLAMA[key] for key in ("positions", "norm", "mlp_conv", "bias")}
        | {"mlp": TWO_LAYERS, "qk_norm": (True,)},
        configs.export_nanochat,
        configs.import_nanochat,
        nanochat.layout,
    ),
}


def architecture_of(config: Config) -> str:
    """Return the model_type of the architecture that computes the model that `config` describes.

    ConfigError names the knobs that have no equal in the nearest one, a line for each.
    """
    config = config.resolved()
    misfits = {name: find_misfits(config, name) for name in ARCHITECTURES}
    # positions choose between families; all else is nearer
    nearest = min(misfits, key=lambda name: ("positions" in misfits[name], len(misfits[name])))
    if misfits[nearest]:
        raise ConfigError("\n".join(misfits[nearest].values()))
    return nearest


def find_misfits(config: Config, model_type: str) -> dict[str, str]:
    """Return by key in words what keeps the architecture from computing the resolved `config`."""
    architecture = ARCHITECTURES[model_type]
    knobs = dict(architecture.knobs)
    if model_type == "gpt2":
        knobs["n_kv_head"] = (config.n_head,)
    misfits = {
        key: f"{key}: found {show(config[key])}; allowed: {', '.join(map(show, allowed))} in"
        f" {architecture.class_name}, the nearest architecture of transformers"
        for key, allowed in knobs.items()
        if config[key] not in allowed
    }
    n_norms, room = 2 * config.n_layer + 1, config.n_embd
    if model_type == "nanochat" and n_norms > room:
        misfits["n_layer"] = (
            f"n_layer: found {config.n_layer}; allowed: at most {(room - 1) // 2} in"
            f" {architecture.class_name} with n_embd {room}"
        )
    return misfits


def write_architecture(
    weights: Mapping[str, Tensor], config: Config
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config.json and the tensors of the model that has our `weights`.

    Raises ConfigError where transformers has none that computes the same.
    """
    config = config.resolved()
    model_type = architecture_of(config)
    architecture = ARCHITECTURES[model_type]
    eps = None
    if model_type == "nanochat":
        eps = nanochat.find_scales(weights["wte.weight"], config).eps
        tensors = nanochat.export_weights(weights, config)
    else:
        tensors = layouts.put_all(weights, architecture.layout(config))
        tensors |= architecture.constants(config)
    hf: dict[str, Any] = {"architectures": [architecture.class_name], "model_type": model_type}
    hf |= architecture.export_config(config) | {"dtype": "float32"}
    return hf | ({"rms_norm_eps": eps} if eps else {}), tensors


def read_architecture(
    hf_config: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return our model keys and our weights, in float32, of a config.json and its tensors.

    Raises ConfigError and CheckpointError with one line about the first that our model would not
    compute exactly: key or tensor, what was found, what is allowed.
    """
    model_type = configs.expect(hf_config, "model_type", tuple(ARCHITECTURES), unsaid=None)
    architecture = ARCHITECTURES[model_type]
    for key, alone in configs.ALONE.items():
        configs.expect(hf_config, key, (alone, None))
    configs.expect(hf_config, "architectures", ([architecture.class_name], None))
    keys = architecture.import_config(hf_config) | {"mlp_conv": 0}
    tensors = plain_names(tensors, architecture.prefix)
    says_tied = hf_config.get("tie_word_embeddings", model_type == "gpt2")
    keys["tied_head"] = "lm_head.weight" not in tensors and says_tied
    errors = find_errors(keys)
    if errors:
        raise ConfigError("\n".join(f"{key}: {text}" for key, text in errors.items()))
    config = complete(keys).resolved()
    if model_type == "nanochat":
        weights = nanochat.import_weights(tensors, config)
    else:
        weights = import_weights(tensors, config, architecture)
    if not config.tied_head and torch.equal(weights["lm_head.weight"], weights["wte.weight"]):
        del weights["lm_head.weight"]
        keys["tied_head"] = True
    return {key: keys[key] for key in MODEL_KEYS}, weights


def import_weights(
    tensors: Mapping[str, Tensor], config: Config, architecture: Architecture
) -> dict[str, Tensor]:
    """Return our weights of `tensors` that are as `config` asks; else CheckpointError."""
    layout, constants = architecture.layout(config), architecture.constants(config)
    layouts.check_tensors(tensors, layouts.put_all(layouts.shapes(config), layout) | constants)
    layouts.check_constants(tensors, constants)
    return layouts.take_all(tensors, layout)


def plain_names(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return `tensors` by their names of today, without what older files keep beside weights."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full = name if name.startswith((prefix, "lm_head.")) else prefix + name
        if full in plain:
            raise CheckpointError(f"{printable(full)}: stands twice, with and without {prefix}")
        if not full.endswith(NO_WEIGHTS):
            plain[full] = tensor
    return plain
