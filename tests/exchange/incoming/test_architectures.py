"""Models of transformers become ours and ours become theirs, computing the same; else refused."""

import itertools
from typing import Any

import pytest
import torch
from every import in_every, some
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from variants import warmed

from nanogpt2.base.system.errors import CheckpointError, ConfigError
from nanogpt2.config.config import MODEL_KEYS, get_config
from nanogpt2.exchange.incoming.architectures import (
    ARCHITECTURES,
    read_architecture,
    write_architecture,
)
from nanogpt2.model.gpt import GPT

NARROW = {"vocab_size": 101, "n_positions": 32, "n_embd": 48, "n_layer": 2, "n_head": 4}
SMALL = {"vocab_size": 61, "block_size": 24, "n_layer": 2, "n_head": 4, "n_embd": 32, "dropout": 0}
# A model of ours for each architecture, with the parts that are hardest to write there.
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"architecture": "gpt2"},
    "gpt2 untied relu2": {"architecture": "gpt2", "tied_head": False, "mlp": "relu2"},
    "gpt2 no bias": {"architecture": "gpt2", "bias": False},
    "qwen3": {"mlp": "swiglu", "logit_softcap": 0, "n_kv_head": 2},
    "qwen3 tied": {"mlp": "swiglu", "logit_softcap": 0, "tied_head": True},
    "llama": {"mlp": "swiglu", "logit_softcap": 0, "qk_norm": False, "n_kv_head": 1},
    "llama bias": {"mlp": "swiglu", "logit_softcap": 0, "qk_norm": False, "bias": True},
    "arcee": {"mlp": "relu2", "logit_softcap": 0, "qk_norm": False, "tied_head": True},
    "arcee gelu bias": {"mlp": "gelu", "logit_softcap": 0, "qk_norm": False, "bias": True},
    "apertus": {"mlp": "gelu", "logit_softcap": 0},
    "apertus relu2": {"mlp": "relu2", "logit_softcap": 0, "n_kv_head": 2},
    "nanochat": {"mlp": "gelu", "logit_softcap": 15},
    "nanochat tied": {"mlp": "gelu", "logit_softcap": 3.5, "tied_head": True, "n_kv_head": 2},
    "nanochat relu2": {"mlp": "relu2", "logit_softcap": 15},
}


def ours(knobs: dict[str, Any]) -> GPT:
    """Return a model whose weights, those of norms too, are all of them random."""
    return warmed(get_config({"architecture": "modern", **SMALL, **knobs})).eval()


def random_gpt2(**settings: Any) -> Any:
    torch.manual_seed(0)
    shape = NARROW | {"initializer_range": 0.2, "bos_token_id": None, "eos_token_id": None}
    model = GPT2LMHeadModel(GPT2Config(**(shape | settings)))
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms too
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.train(False)


def as_theirs(hf: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """Return the model of transformers that `hf` describes, with exactly these tensors."""
    none = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model(**(hf | none)))
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert not unexpected
    assert missing == (["lm_head.weight"] if hf["tie_word_embeddings"] else [])
    model.tie_weights()
    return model.eval()


def as_ours(keys: dict[str, Any], weights: dict[str, Tensor]) -> GPT:
    assert set(keys) == set(MODEL_KEYS)
    model = GPT(get_config(keys)).eval()
    model.load_state_dict(weights)
    return model


@torch.no_grad()
def difference(model: GPT, theirs: Any) -> float:
    generator = torch.Generator().manual_seed(1)
    idx = torch.randint(model.config.vocab_size, (2, model.config.block_size), generator=generator)
    return float((model(idx) - theirs(idx).logits.float()).abs().max())


def assert_same_bits(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(
    ("n_layer", "n_head"), some([(12, 12), (24, 16), (36, 20), (48, 25)], (12, 12), (48, 25))
)
def test_a_gpt2_of_each_depth_comes_in_and_goes_out_the_same(n_layer: int, n_head: int) -> None:
    theirs = random_gpt2(n_layer=n_layer, n_head=n_head, n_embd=4 * n_head)
    tensors = {name: x for name, x in theirs.state_dict().items() if name != "lm_head.weight"}
    keys, weights = read_architecture(theirs.config.to_dict(), tensors)
    model = as_ours(keys, weights)
    assert difference(model, theirs) < 1e-4
    hf, out = write_architecture(model.state_dict(), model.config)
    assert_same_bits(out, tensors)
    again = GPT2Config(**hf).to_dict()
    for key in ("n_layer", "n_head", "n_embd", "n_positions", "vocab_size", "attn_pdrop"):
        assert again[key] == theirs.config.to_dict()[key]


@in_every("small ones of each depth come in above")
def test_a_layer_of_gpt2_of_124_million_parameters_comes_in() -> None:
    torch.manual_seed(0)
    theirs: Any = GPT2LMHeadModel(GPT2Config(n_layer=1))
    theirs.train(False)
    keys, weights = read_architecture(theirs.config.to_dict(), theirs.state_dict())
    model = as_ours(keys, weights)
    assert model.count_parameters() == 124_439_808 - 11 * 7_087_872  # as each has
    idx = torch.randint(50257, (1, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (model(idx) - theirs(idx).logits).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_any_float_type_come_in_exactly(dtype: torch.dtype) -> None:
    theirs = random_gpt2().to(dtype)
    keys, weights = read_architecture(theirs.config.to_dict(), theirs.state_dict())
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert difference(as_ours(keys, weights), theirs.float()) < 1e-4


@pytest.mark.parametrize("tied", [True, False])
def test_whether_the_head_is_tied_is_seen_by_its_values(tied: bool) -> None:
    theirs = random_gpt2(tie_word_embeddings=tied)
    keys, weights = read_architecture(theirs.config.to_dict(), theirs.state_dict())
    assert keys["tied_head"] == tied
    assert difference(as_ours(keys, weights), theirs) < 1e-4


def test_names_without_transformer_and_old_masks_are_understood() -> None:
    theirs = random_gpt2()
    old = {
        name.removeprefix("transformer."): tensor
        for name, tensor in theirs.state_dict().items()
        if name != "lm_head.weight"
    }
    masks = {"h.0.attn.bias": torch.ones(1, 1, 32, 32), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    keys, weights = read_architecture(theirs.config.to_dict(), old | masks)
    assert difference(as_ours(keys, weights), theirs) < 1e-4


def test_an_old_config_json_is_understood() -> None:
    theirs = random_gpt2()
    old = {"model_type": "gpt2", "n_ctx": 32, "initializer_range": 0.02, **NARROW}
    keys, weights = read_architecture(old, theirs.state_dict())
    assert difference(as_ours(keys, weights), theirs) < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_our_model_in_its_architecture_computes_the_same(name: str) -> None:
    model = ours(MODELS[name])
    hf, tensors = write_architecture(model.state_dict(), model.config)
    assert hf["model_type"] == name.split()[0]
    assert difference(model, as_theirs(hf, tensors)) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_export_import_export_is_equal_to_the_bit(name: str) -> None:
    model = ours(MODELS[name])
    hf, tensors = write_architecture(model.state_dict(), model.config)
    keys, weights = read_architecture(hf, tensors)
    back = as_ours(keys, weights)
    again, same = write_architecture(back.state_dict(), back.config)
    assert_same_bits(same, tensors)
    dropout = {"resid_pdrop", "embd_pdrop", "attn_pdrop"}
    assert {k: again[k] for k in hf.keys() - dropout} == {k: hf[k] for k in hf.keys() - dropout}
    without = {"dropout", "attention_dropout", "bias"}  # GPT-2's biases may be zeros
    assert all(keys[key] == model.config[key] for key in set(MODEL_KEYS) - without)
    idx = torch.randint(61, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(back(idx), model(idx), rtol=0, atol=1e-5)


def test_every_mixture_of_knobs_has_its_equal_or_is_refused_with_a_knob_that_has_none() -> None:
    knobs: dict[str, tuple[Any, ...]] = {
        "positions": ("learned", "rotary"),
        "norm": ("layer", "rms"),
        "qk_norm": (False, True),
        "mlp": ("gelu", "relu2", "swiglu"),
        "bias": (False, True),
        "logit_softcap": (0.0, 15.0),
        "n_kv_head": (4, 2),
    }
    found, refused = set(), []
    for values in itertools.product(*knobs.values()):
        mixture = dict(zip(knobs, values, strict=True))
        model = GPT(get_config(SMALL | mixture))
        try:
            found.add(write_architecture(model.state_dict(), model.config)[0]["model_type"])
        except ConfigError as error:
            named = [line.partition(":")[0] for line in str(error).splitlines()]
            assert set(named) <= set(knobs)
            refused.append((mixture, named))
    assert found == set(ARCHITECTURES)
    for mixture, named in refused:  # and with other values of these it is not
        others = itertools.product(*(knobs[key] for key in named))
        changed = [mixture | dict(zip(named, values, strict=True)) for values in others]
        assert any(other not in [each for each, _ in refused] for other in changed)


@pytest.mark.parametrize("architecture", ["gpt2", "modern", "qwen3"])
def test_a_convolution_is_refused_in_one_line(architecture: str) -> None:
    model = ours({"architecture": architecture, "mlp_conv": 4})
    with pytest.raises(ConfigError, match=r"^mlp_conv: found 4; allowed: 0 in [^\n]*$"):
        write_architecture(model.state_dict(), model.config)


def test_a_nanochat_has_room_for_the_norms_of_so_many_layers_alone() -> None:
    most = ours({"n_embd": 8, "n_layer": 3})
    assert write_architecture(most.state_dict(), most.config)[0]["model_type"] == "nanochat"
    more = ours({"n_embd": 8, "n_layer": 4})
    with pytest.raises(ConfigError, match=r"^logit_softcap: found 15\.0; allowed: 0\.0 in Ap"):
        write_architecture(more.state_dict(), more.config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "bloom"}, 'model_type: found "bloom"; allowed: "gpt2", "qwen3"'),
        ({"activation_function": "relu"}, 'activation_function: found "relu"; allowed: "gelu_new"'),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon: found 1e-06; allowed: 1e-05"),
        ({"n_inner": 100}, "n_inner: found 100; allowed: null, 192"),
        ({"scale_attn_weights": False}, "scale_attn_weights: found false; allowed: true"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: found true"),
        ({"add_cross_attention": True}, "add_cross_attention: found true; allowed: false"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: found"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "auto_map: found"),
        ({"architectures": ["GPT2ForSequenceClassification"]}, "architectures: found"),
        ({"n_layer": 0}, "n_layer: found 0; allowed: an integer, at least 1"),
        ({"n_layer": True}, "n_layer: found true; allowed: an integer"),
        ({"n_embd": "48"}, 'n_embd: found "48"; allowed: an integer'),
        ({"n_head": 5}, "n_head: found 5; allowed: a divisor of n_embd 48"),
        ({"n_positions": 10**9}, "block_size: found 1000000000; allowed"),
        ({"resid_pdrop": 1.5}, "dropout: found 1.5; allowed"),
    ],
)
def test_a_gpt2_that_computes_otherwise_is_refused(change: dict[str, Any], words: str) -> None:
    theirs = random_gpt2()
    with pytest.raises(ConfigError) as caught:
        read_architecture(theirs.config.to_dict() | change, theirs.state_dict())
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("qwen3", {"rms_norm_eps": 1e-6}, "rms_norm_eps: found 1e-06; allowed: 1e-05"),
        ("qwen3", {"sliding_window": 8}, "sliding_window: found 8; allowed: null, or at least"),
        ("qwen3", {"head_dim": 16}, "hidden_size: found 32; allowed: 64"),
        ("qwen3", {"attention_bias": True}, "attention_bias: found true; allowed: false"),
        ("qwen3", {"intermediate_size": 99}, "intermediate_size: found 99; allowed: 88"),
        ("qwen3", {"hidden_act": "gelu"}, 'hidden_act: found "gelu"; allowed: "silu"'),
        ("llama", {"mlp_bias": True}, "mlp_bias: found true; allowed: false"),
        ("llama", {"rope_parameters": {"rope_theta": 5e5}}, "rope_theta: found 500000.0"),
        ("llama", {"rope_parameters": None, "rope_theta": 5e5}, "rope_theta: found 500000.0"),
        (
            "llama",
            {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
            'rope_type: found "linear"; allowed: "default"',
        ),
        ("llama", {"rope_parameters": [1]}, "rope_parameters: found [1]; allowed"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor: found 0.5; allowed: 1.0"),
        ("llama", {"num_key_value_heads": 3}, "n_kv_head: found 3; allowed: a divisor"),
        ("apertus", {"hidden_act": "xielu"}, 'hidden_act: found "xielu"; allowed: "gelu_new"'),
        ("apertus", {"rope_parameters": None}, "rope_type: found null; allowed"),
        ("nanochat", {"hidden_size": 32}, "hidden_size: found 32; allowed: 40"),
    ],
)
def test_a_modern_model_that_computes_otherwise_is_refused(
    name: str, change: dict[str, Any], words: str
) -> None:
    model = ours(MODELS[name])
    hf, tensors = write_architecture(model.state_dict(), model.config)
    with pytest.raises(ConfigError) as caught:
        read_architecture(hf | change, tensors)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing_too_many_or_of_other_shapes_are_refused_in_a_line() -> None:
    theirs = random_gpt2()
    hf, tensors = theirs.config.to_dict(), theirs.state_dict()
    name = "transformer.h.0.mlp.c_fc.bias"
    cases: dict[str, dict[str, Tensor]] = {
        f"{name}: found (5,); allowed: (192,)": tensors | {name: torch.zeros(5)},
        f"{name}: found nothing; allowed: (192,)": {k: v for k, v in tensors.items() if k != name},
        "transformer.adapter: found (2,); allowed: nothing": tensors | {"adapter": torch.zeros(2)},
        "transformer.h.0.attn.c_attn.bias: found nothing; allowed: (144,), and 23 more": {
            k: v for k, v in tensors.items() if ".h." not in k
        },
        f"{name}: found int8; allowed: float numbers": tensors | {name: tensors[name].char()},
        f"{name}: stands twice": tensors | {name.removeprefix("transformer."): tensors[name]},
    }  # fmt: skip
    for words, changed in cases.items():
        with pytest.raises(CheckpointError) as caught:
            read_architecture(hf, changed)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


def test_weights_that_our_model_does_without_are_refused_unless_they_change_nothing() -> None:
    model = ours(MODELS["qwen3"])
    hf, tensors = write_architecture(model.state_dict(), model.config)
    tensors["model.layers.1.self_attn.k_norm.weight"][3] = 1.5
    with pytest.raises(CheckpointError, match=r"^model\.layers\.1\.self_attn\.k_norm\.weight: "):
        read_architecture(hf, tensors)


@pytest.mark.parametrize(
    "name",
    [
        "lm_head.weight",
        "model.embed_tokens.weight",
        "model.layers.0.mlp.fc2.weight",
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.1.self_attn.o_proj.weight",
    ],
)
def test_a_nanochat_that_we_did_not_export_is_refused(name: str) -> None:
    model = ours(MODELS["nanochat"])
    hf, tensors = write_architecture(model.state_dict(), model.config)
    tensors[name][-1, -1] += 0.01
    with pytest.raises(CheckpointError, match=f"^{name}: not as an export of nanoGPT2"):
        read_architecture(hf, tensors)
