"""config.json of transformers: what a model of ours says there, and what one there says of a model.

What their model would compute otherwise than ours is refused in one line: key, value, allowed.
"""

from collections.abc import Mapping
from typing import Any

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config.config import Config, complete
from nanogpt2.config.schema import find_errors
from nanogpt2.config.yaml12 import show
from nanogpt2.exchange.incoming.layouts import NORM_EPS, shapes
from nanogpt2.exchange.incoming.nanochat import MORE

GELU = ("gelu_new", "gelu_pytorch_tanh")  # two names of one function
MLPS = {"gelu_pytorch_tanh": "gelu", "gelu_new": "gelu", "relu2": "relu2", "silu": "swiglu"}
ROPE_THETA = 10_000.0
# What transformers takes where a config.json is silent.
GPT2_SIZES = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
NORM_EPS_UNSAID = {"arcee": 1e-5, "apertus": 1e-5}
# In any config.json: no code that comes with the model, no codes for weights, no parts beside it.
ALONE = {"auto_map": None, "quantization_config": None, "add_cross_attention": False}


def export_gpt2(config: Config) -> dict[str, Any]:
    """Return config.json of a GPT2LMHeadModel."""
    return {
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": 4 * config.n_embd,
        "activation_function": "relu2" if config.mlp == "relu2" else "gelu_new",
        "layer_norm_epsilon": NORM_EPS,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.attention_dropout,
        "tie_word_embeddings": config.tied_head,
    }


def import_gpt2(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Return our model keys of the config.json of a GPT2LMHeadModel."""
    sizes = {key: count(hf, key, unsaid) for key, unsaid in GPT2_SIZES.items()}
    expect(hf, "n_inner", (None, 4 * sizes["n_embd"]))
    expect(hf, "layer_norm_epsilon", (NORM_EPS,))
    expect(hf, "scale_attn_weights", (True,))
    expect(hf, "scale_attn_by_inverse_layer_idx", (False,))
    return {
        "vocab_size": sizes["vocab_size"],
        "block_size": sizes["n_positions"],
        "n_layer": sizes["n_layer"],
        "n_head": sizes["n_head"],
        "n_kv_head": sizes["n_head"],
        "n_embd": sizes["n_embd"],
        "dropout": hf.get("resid_pdrop", 0.1),
        "attention_dropout": hf.get("attn_pdrop", 0.1),
        "bias": True,
        "positions": "learned",
        "norm": "layer",
        "qk_norm": False,
        "mlp": MLPS[expect(hf, "activation_function", (*GELU, "relu2"))],
        "tied_head": True,
        "logit_softcap": 0.0,
    }


def export_rotary(config: Config) -> dict[str, Any]:
    """Return config.json of a model like Llama."""
    return {
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.block_size,
        "hidden_size": config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_kv_head,
        "head_dim": config.n_embd // config.n_head,
        "intermediate_size": inner_width(config.n_embd, str(config.mlp)),
        "hidden_act": {"gelu": GELU[1], "relu2": "relu2", "swiglu": "silu"}[str(config.mlp)],
        "rms_norm_eps": NORM_EPS,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "attention_bias": config.bias,
        "attention_dropout": config.attention_dropout,
        "tie_word_embeddings": config.tied_head,
    }


def export_biased(config: Config) -> dict[str, Any]:
    """Return config.json of a model like Llama whose MLP may have biases."""
    return export_rotary(config) | {"mlp_bias": config.bias}


def export_qwen3(config: Config) -> dict[str, Any]:
    """Return config.json of a Qwen3ForCausalLM, which slides past the block as ours does."""
    sliding = {"use_sliding_window": True, "sliding_window": config.block_size}
    types = ["sliding_attention"] * config.n_layer
    return export_rotary(config) | sliding | {"max_window_layers": 0, "layer_types": types}


def export_nanochat(config: Config) -> dict[str, Any]:
    """Return config.json of a NanoChatForCausalLM but for rms_norm_eps, which its weights give."""
    return export_rotary(config) | {
        "hidden_size": config.n_embd + MORE,
        "num_hidden_layers": config.n_layer + 1,
        "final_logit_softcapping": config.logit_softcap or None,
        "tie_word_embeddings": False,
    }


def import_rotary(
    hf: Mapping[str, Any], *, mlps: tuple[str, ...], qk_norm: bool, biased: bool
) -> dict[str, Any]:
    """Return our model keys of the config.json of a model like Llama.

    `mlps` are the activations that it may have; `biased` says whether it may have biases.
    """
    expect(hf, "rms_norm_eps", (NORM_EPS,), unsaid=NORM_EPS_UNSAID.get(hf["model_type"], 1e-6))
    values = import_shape(hf, mlps=mlps)
    bias = expect(hf, "attention_bias", (False, True) if biased else (False,))
    if biased:
        expect(hf, "mlp_bias", (bias,), unsaid=False)
    check_window(hf, values["block_size"])
    return values | {"bias": bias, "qk_norm": qk_norm}


def import_nanochat(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Return our model keys of the config.json of a NanoChatForCausalLM that we exported."""
    values = import_shape(hf, mlps=(*GELU, "relu2"), more=MORE)
    expect(hf, "attention_bias", (False,))
    cap = hf.get("final_logit_softcapping", 15.0)
    layers = values["n_layer"] - 1
    return values | {
        "n_layer": layers,
        "qk_norm": True,
        "logit_softcap": 0.0 if cap is None else cap,
    }


def import_shape(hf: Mapping[str, Any], *, mlps: tuple[str, ...], more: int = 0) -> dict[str, Any]:
    """Return what all models like Llama say alike; they have `more` channels than the heads."""
    check_rope(hf)
    heads = count(hf, "num_attention_heads")
    mlp = MLPS[expect(hf, "hidden_act", mlps, unsaid=None)]
    width = heads * head_size(hf, heads)
    expect(hf, "hidden_size", (width + more,), unsaid=None)
    expect(hf, "intermediate_size", (inner_width(width, mlp),), unsaid=None)
    return {
        "vocab_size": count(hf, "vocab_size"),
        "block_size": count(hf, "max_position_embeddings"),
        "n_layer": count(hf, "num_hidden_layers"),
        "n_head": heads,
        "n_kv_head": count(hf, "num_key_value_heads", unsaid=heads),
        "n_embd": width,
        "dropout": 0.0,
        "attention_dropout": hf.get("attention_dropout", 0.0),
        "bias": False,
        "positions": "rotary",
        "norm": "rms",
        "qk_norm": False,
        "mlp": mlp,
        "tied_head": False,
        "logit_softcap": 0.0,
    }


def head_size(hf: Mapping[str, Any], heads: int) -> int:
    """Return the channels of a head; Qwen3 has 128 where it does not say."""
    if hf["model_type"] == "qwen3" or hf.get("head_dim") is not None:
        return count(hf, "head_dim", unsaid=128)
    return max(1, count(hf, "hidden_size") // heads)


def inner_width(width: int, mlp: str) -> int:
    """Return the channels within an MLP (those of each part, where it is gated)."""
    shape = {"n_layer": 1, "n_head": 1, "n_embd": width, "mlp": mlp, "positions": "learned"}
    errors = find_errors(shape)
    if errors:
        raise ConfigError("\n".join(f"{key}: {text}" for key, text in errors.items()))
    return int(shapes(complete(shape))["h.0.mlp.c_proj.weight"].shape[1])


def check_rope(hf: Mapping[str, Any]) -> None:
    """Raise ConfigError where positions turn otherwise than by ROPE_THETA; two spellings."""
    rope = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise wrong("rope_parameters", rope, "keys with values")
    said = bool(rope) or hf["model_type"] != "apertus"  # which scales where nothing is said
    expect(rope, "rope_type", ("default",), unsaid=rope.get("type", "default" if said else None))
    expect(rope, "rope_theta", (ROPE_THETA,), unsaid=hf.get("rope_theta", ROPE_THETA))
    share = hf.get("partial_rotary_factor", 1.0)
    expect(rope, "partial_rotary_factor", (1.0,), unsaid=share)


def check_window(hf: Mapping[str, Any], block_size: int) -> None:
    """Raise ConfigError where attention is cut short within the block."""
    window = hf.get("sliding_window", 4096) if hf.get("use_sliding_window", False) else None
    if window is not None and count(hf, "sliding_window", unsaid=4096) < block_size:
        allowed = f"null, or at least max_position_embeddings {block_size}"
        raise wrong("sliding_window", window, allowed)


def expect(hf: Mapping[str, Any], key: str, allowed: tuple[Any, ...], **unsaid: Any) -> Any:
    """Return the value of `key`, one of `allowed`; ConfigError where it is not.

    A key that is missing has the first allowed value, or that of `unsaid`.
    """
    value = hf.get(key, unsaid.get("unsaid", allowed[0]))
    if value not in allowed:
        raise wrong(key, value, ", ".join(map(show, allowed)))
    return value


def count(hf: Mapping[str, Any], key: str, unsaid: int | None = None) -> int:
    """Return the value of `key`, a whole number above 0; ConfigError where it is not."""
    value = hf.get(key, unsaid)
    if type(value) is not int or value < 1:
        raise wrong(key, value, "an integer, at least 1")
    return value


def wrong(key: str, value: Any, allowed: str) -> ConfigError:
    """Return the error of a value that is not allowed."""
    return ConfigError(f"{key}: found {show(value)}; allowed: {allowed}")
