"""Where the weights of our GPT stand in the models of transformers.

A weight may be cut into parts, transposed (GPT-2's Conv1D keeps (in, out)), and multiplied.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nanogpt2.base.system.errors import CheckpointError
from nanogpt2.config.config import Config
from nanogpt2.config.yaml12 import printable
from nanogpt2.model.operators import QK_EPS
from nanogpt2.model.shapes import make_shapes

NORM_EPS = 1e-5  # of the model's norms
# Transformers' norm of queries and keys has the epsilon of the other norms: of a head that is
# QK_SCALE times as large, NORM_EPS is the share that QK_EPS is of ours.
QK_SCALE = math.sqrt(NORM_EPS / QK_EPS)

QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
# The modules of a layer of ours, and theirs, which follow one another in rows of ours.
GATED = {
    "ln_1": ("input_layernorm",),
    "attn.c_attn": QKV,
    "attn.c_proj": ("self_attn.o_proj",),
    "ln_2": ("post_attention_layernorm",),
    "mlp.c_fc": ("mlp.gate_proj", "mlp.up_proj"),
    "mlp.c_proj": ("mlp.down_proj",),
}
PLAIN = GATED | {"mlp.c_fc": ("mlp.up_proj",)}
APERTUS = PLAIN | {"ln_1": ("attention_layernorm",), "ln_2": ("feedforward_layernorm",)}
OUTSIDE = {"wte": "model.embed_tokens", "ln_f": "model.norm", "lm_head": "lm_head"}


@dataclass(frozen=True)
class Part:
    """Rows of a weight of ours, as they stand in a tensor of theirs."""

    name: str
    rows: int
    factor: float = 1.0
    transposed: bool = False

    def put(self, rows: Tensor) -> Tensor:
        """Return their tensor for `rows` of ours."""
        tensor = scaled(rows, self.factor)
        return (tensor.T if self.transposed else tensor).contiguous()

    def take(self, tensor: Tensor) -> Tensor:
        """Return rows of ours of which `put` makes `tensor`, to the bit where there are any."""
        tensor = tensor.T if self.transposed else tensor
        return unscaled(tensor.float(), self.factor).contiguous()


Layout = dict[str, list[Part]]  # the parts of each weight of ours


def scaled(x: Tensor, factor: float | Tensor) -> Tensor:
    """Return `x` times `factor`, rounded once."""
    if isinstance(factor, float) and factor == 1:
        return x
    return (x.double() * factor).float()


def unscaled(y: Tensor, factor: float | Tensor) -> Tensor:
    """Return an x whose `scaled(x, factor)` is `y` to the bit, or the nearest where there is none.

    The quotient is at most one step off.
    """
    if isinstance(factor, float) and factor == 1:
        return y
    x = (y.double() / factor).float()
    for way in (-math.inf, math.inf):
        near = torch.nextafter(x, torch.tensor(way))
        better = (scaled(near, factor) == y) & (scaled(x, factor) != y)
        x = torch.where(better, near, x)
    return x


def gpt2_layout(config: Config) -> Layout:
    """Return where each weight stands in a GPT2LMHeadModel."""
    layout = {}
    for name, weight in shapes(config).items():
        matrix = weight.dim() == 2 and name.split(".")[-2].startswith("c_")
        prefix = "" if name.startswith("lm_head") else "transformer."
        layout[name] = [Part(prefix + name, len(weight), transposed=matrix)]
    return layout


def gpt2_constants(config: Config) -> dict[str, Tensor]:
    """Return the biases of zeros of a GPT2LMHeadModel whose model has none."""
    if config.resolved().bias:
        return {}
    return {
        f"transformer.{name.removesuffix('weight')}bias": torch.zeros(len(weight))
        for name, weight in shapes(config).items()
        if name.startswith(("h.", "ln_f"))
    }


def rotary_layout(
    config: Config, modules: Mapping[str, Sequence[str]], *, first_layer: int = 0
) -> Layout:
    """Return where each weight stands in a model like Llama.

    `modules` names its modules by ours; `first_layer` is the number of its layer that is our first.
    """
    config = config.resolved()
    head_size = config.n_embd // config.n_head
    layout: Layout = {}
    for name, weight in shapes(config).items():
        module, _, kind = name.rpartition(".")
        if module in OUTSIDE:
            layout[name] = [Part(f"{OUTSIDE[module]}.{kind}", len(weight))]
            continue
        _, layer, inner = module.split(".", 2)
        theirs = modules[inner]
        rows = [len(weight) // max(1, len(theirs))] * len(theirs)
        factors = [1.0] * len(theirs)
        if theirs == QKV:
            key_rows = (config.n_kv_head or config.n_head) * head_size
            rows = [config.n_embd, key_rows, key_rows]
            factors = [QK_SCALE, QK_SCALE, 1.0] if config.qk_norm else factors
        prefix = f"model.layers.{int(layer) + first_layer}."
        layout[name] = [
            Part(f"{prefix}{theirs[i]}.{kind}", rows[i], factors[i]) for i in range(len(theirs))
        ]
    return layout


def rotary_constants(config: Config) -> dict[str, Tensor]:
    """Return the weights of the norms of queries and keys, which have none in our model."""
    if not config.resolved().qk_norm:
        return {}
    return {
        f"model.layers.{layer}.self_attn.{each}_norm.weight": torch.ones(
            config.n_embd // config.n_head
        )
        for layer in range(config.n_layer)
        for each in "qk"
    }


def shapes(config: Config) -> dict[str, Tensor]:
    """Return the weights of the model that `config` describes, without memory."""
    return make_shapes(config).state_dict()


def put_all(weights: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Return their tensors of our `weights`."""
    tensors = {}
    for name, parts in layout.items():
        cut = torch.split(weights[name], [part.rows for part in parts]) if parts else ()
        for part, rows in zip(parts, cut, strict=True):
            tensors[part.name] = part.put(rows)
    return tensors


def take_all(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Return our weights of their `tensors`, as `put_all` wrote them."""
    return {
        name: torch.cat([part.take(tensors[part.name]) for part in parts])
        for name, parts in layout.items()
        if parts
    }


def check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError where names, shapes or dtypes are not as `expected`, in one line."""

    def describe(found: Mapping[str, Tensor], name: str) -> str:
        return str(tuple(found[name].shape)) if name in found else "nothing"

    wrong = sorted(
        name
        for name in tensors.keys() | expected.keys()
        if describe(tensors, name) != describe(expected, name)
    )
    if wrong:
        name, more = wrong[0], f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"{printable(name)}: found {describe(tensors, name)}; allowed:"
            f" {describe(expected, name)}{more}"
        )
    coded = [name for name, tensor in tensors.items() if not tensor.is_floating_point()]
    if coded:
        kind = str(tensors[coded[0]].dtype).removeprefix("torch.")
        raise CheckpointError(f"{printable(coded[0])}: found {kind}; allowed: float numbers")


def check_constants(tensors: Mapping[str, Tensor], constants: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError where tensors that our model does without are not `constants`."""
    for name, constant in constants.items():
        if not torch.allclose(tensors[name].float(), constant, rtol=1e-6, atol=0):
            raise CheckpointError(f"{name}: found weights that our model has no equal for")
