"""NanoChat of transformers: the one architecture with a soft-cap on the logits, reached by detours.

Its norms have no weights, and it norms embeddings too. So norms are multiplied into the matrices
that read them; and every embedding gets the same length by one channel more, which one layer more,
the first, takes away again. The queries of that layer change nothing: they keep the norms' weights,
so that the way back is exact.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.base.system.errors import CheckpointError
from nanogpt2.config.config import Config
from nanogpt2.exchange.incoming.layouts import (
    NORM_EPS,
    PLAIN,
    QKV,
    Layout,
    Part,
    check_tensors,
    put_all,
    rotary_layout,
    scaled,
    shapes,
    take_all,
    unscaled,
)
from nanogpt2.model.operators import QK_EPS

MORE = 8  # channels beyond ours; of these only the first two hold something
MODULES = PLAIN | {"ln_1": (), "ln_2": (), "mlp.c_fc": ("mlp.fc1",), "mlp.c_proj": ("mlp.fc2",)}
EMBEDDING, HEAD, FIRST = "model.embed_tokens.weight", "lm_head.weight", "model.layers.0."
NORMS_KEPT = f"{FIRST}self_attn.q_proj.weight"


@dataclass(frozen=True)
class Scales:
    """What a model is multiplied with, by the lengths of its embeddings."""

    square: float  # of an embedding's length, the first channel more included
    constant: float  # what the second channel more holds
    eps: float  # of their norms
    stream: float  # of the residual stream: what the norm of embeddings multiplies with
    first: float  # what the norms of the first layer multiply with
    fold: float  # of a matrix that reads a norm: theirs is a mean over more channels


def find_scales(wte: Tensor, config: Config) -> Scales:
    """Return the scales for embeddings `wte` (V, C)."""
    width = config.n_embd + MORE
    # a power of two, so that the order of a sum changes nothing
    square = 2.0 ** math.frexp(float(wte.double().square().sum(1).max()))[1]
    constant = math.sqrt(square) if config.mlp == "relu2" else 0.0
    mean = (square + constant**2) / width
    # solves eps = stream^2 * NORM_EPS * C / width with stream = 1 / sqrt(mean + eps)
    eps = (-mean + math.sqrt(mean**2 + 4 * NORM_EPS * config.n_embd / width)) / 2
    stream = 1 / math.sqrt(mean + eps)
    first = 1 / math.sqrt(stream**2 * mean + eps)
    return Scales(square, constant, eps, stream, first, math.sqrt(config.n_embd / width))


def export_weights(weights: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Return the tensors of a NanoChatForCausalLM with our `weights`."""
    config = config.resolved()
    wte, norms = weights["wte.weight"], {name: weights[name] for name in norm_names(config)}
    scales = find_scales(wte, config)
    tensors = put_all({HEAD: wte} | dict(weights), layout(config))
    for name, tensor in tensors.items():
        factor = factor_of(name, norms, config, scales)
        tensors[name] = widened(scaled(turned(tensor, name, config), factor), name)
    return tensors | added_tensors(wte, norms, config, scales)


def import_weights(tensors: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """Return our weights, the head's among them, of a NanoChatForCausalLM that we exported.

    CheckpointError where it is another one. `config` has a head of its own.
    """
    config = config.resolved()
    check_tensors(tensors, expected_tensors(config))
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    names, width = norm_names(config), config.n_embd
    kept = tensors[NORMS_KEPT][: len(names), :width].clone()
    norms = dict(zip(names, kept, strict=True))
    wte = tensors[EMBEDDING][:, :width].clone()
    scales = find_scales(wte, config)
    check_added(tensors, added_tensors(wte, norms, config, scales))
    plain = {EMBEDDING: wte}
    for name, tensor in tensors.items():
        if name != EMBEDDING and not name.startswith(FIRST):
            factor = factor_of(name, norms, config, scales)
            inner = narrowed(tensor, name, width)
            check_added({name: tensor}, {name: widened(inner, name)})
            tied = name == HEAD and torch.equal(inner, scaled(wte, factor))
            plain[name] = wte if tied else turned(unscaled(inner, factor), name, config)
    return take_all(plain, layout(config)) | norms


def layout(config: Config) -> Layout:
    """Return where each weight stands, apart from scales and channels more; norms stand nowhere."""
    parts = rotary_layout(config, MODULES, first_layer=1) | {"ln_f.weight": [], HEAD: []}
    plain = {name: [Part(part.name, part.rows) for part in each] for name, each in parts.items()}
    return plain | {HEAD: [Part(HEAD, config.vocab_size)]}


def norm_names(config: Config) -> list[str]:
    """Return the names of our norms' weights, in order."""
    return [name for name in shapes(config) if "ln_" in name]


def expected_tensors(config: Config) -> dict[str, Tensor]:
    """Return tensors of the names and shapes that an export of `config` has, without memory."""
    tensors = put_all({HEAD: shapes(config)["wte.weight"]} | shapes(config), layout(config))
    wide = {name: widened(tensor, name) for name, tensor in tensors.items()}
    first = {
        FIRST + name.removeprefix("model.layers.1."): tensor
        for name, tensor in wide.items()
        if name.startswith("model.layers.1.")
    }
    return wide | first


def added_tensors(
    wte: Tensor, norms: Mapping[str, Tensor], config: Config, scales: Scales
) -> dict[str, Tensor]:
    """Return the embedding with its channels more, and the layer that takes these away."""
    width = config.n_embd
    first = {
        name: torch.zeros(tensor.shape)
        for name, tensor in expected_tensors(config).items()
        if name.startswith(FIRST)
    }
    first[NORMS_KEPT][: len(norms), :width] = torch.stack(list(norms.values()))
    fc1, fc2 = first[f"{FIRST}mlp.fc1.weight"], first[f"{FIRST}mlp.fc2.weight"]
    length, constant = width, width + 1
    if config.mlp == "gelu":  # gelu(x) - gelu(-x) = x
        fc1[:2, length] = torch.tensor([1.0, -1.0])
        fc2[length, :2] = torch.tensor([-1.0, 1.0]) / scales.first
    else:  # relu2(x + c) - relu2(x - c) - relu2(c - x) = 4 x c where x + c > 0, and relu2(c) = c^2
        fc1[:3, length] = torch.tensor([1.0, 1.0, -1.0])
        fc1[:4, constant] = torch.tensor([1.0, -1.0, 1.0, 1.0])
        by_square = 1 / (scales.first**2 * scales.stream * scales.constant)
        fc2[length, :3] = torch.tensor([-1.0, 1.0, 1.0]) * (by_square / 4)
        fc2[constant, 3] = -by_square
    lacking = (scales.square - wte.double().square().sum(1)).sqrt().float()
    embedding = F.pad(wte, (0, MORE))
    embedding[:, length], embedding[:, constant] = lacking, scales.constant
    return first | {EMBEDDING: embedding}


def check_added(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise CheckpointError where tensors are not `expected` but for the last bits."""
    for name, tensor in expected.items():
        if not torch.allclose(tensors[name], tensor, rtol=1e-6, atol=0):
            raise CheckpointError(
                f"{name}: not as an export of nanoGPT2 has it; no other NanoChat fits our model"
            )


def factor_of(
    name: str, norms: Mapping[str, Tensor], config: Config, scales: Scales
) -> float | Tensor:
    """Return what the tensor `name` is multiplied with: a number, or one for each column."""
    if name == EMBEDDING:
        return 1.0
    if name == HEAD:
        return norms["ln_f.weight"].double() * scales.fold
    _, _, layer, module = name.removesuffix(".weight").split(".", 3)
    if module not in (*QKV, "mlp.fc1"):
        return scales.stream
    norm = norms[f"h.{int(layer) - 1}.{'ln_1' if module in QKV else 'ln_2'}.weight"]
    qk_scale = math.sqrt(scales.eps / QK_EPS) if module in QKV[:2] else 1.0
    return norm.double() * (scales.fold * qk_scale)


def turned(tensor: Tensor, name: str, config: Config) -> Tensor:
    """Return queries or keys with the halves of each head in each other's place; it undoes itself.

    Their rotation turns the other way.
    """
    if not name.endswith((f"{QKV[0]}.weight", f"{QKV[1]}.weight")):
        return tensor
    half = config.n_embd // config.n_head // 2
    return tensor.view(-1, 2, half, tensor.shape[1]).flip(1).reshape(tensor.shape)


def widened(tensor: Tensor, name: str) -> Tensor:
    """Return `tensor` with zeros for the channels more, which it reads or writes."""
    return F.pad(tensor, (0, 0, 0, MORE) if _writes(name) else (0, MORE))


def narrowed(tensor: Tensor, name: str, width: int) -> Tensor:
    """Return `tensor` without the channels beyond `width`, which it reads or writes."""
    return tensor[:width] if _writes(name) else tensor[:, :width]


def _writes(name: str) -> bool:
    """Return whether a matrix writes to the residual stream; the others read it."""
    return name.endswith(("o_proj.weight", "fc2.weight"))
