"""Trials of the kernels that decode on a GPU: what they make of random numbers, and what is right.

That is what the model's modules make of them in float32.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from nanogpt2.decode.decoder import ModuleDecoder
from nanogpt2.decode.kernels import gpu
from nanogpt2.kernels.checks.samples import Pair
from nanogpt2.model.gpt import GPT, Block, rope_angles
from nanogpt2.model.shapes import make_shapes

# How far a number may be off, as a share of the largest: by sums in another order, and by each
# time that it is stored in the dtype of the weights on its way through a block.
SUMS, ROUNDINGS = 1e-5, 8


class Trial:
    """A random model of one layer, and a decoder of each kind with the same cache."""

    def __init__(
        self, shape: Mapping[str, Any], device: torch.device, dtype: torch.dtype, rows: int
    ) -> None:
        self.generator = torch.Generator(device).manual_seed(1)
        self.tolerance = max(SUMS, ROUNDINGS * torch.finfo(dtype).eps)
        model = make_shapes(shape).to(dtype).to_empty(device=device).eval()
        for weight in model.parameters():
            scale = weight.shape[-1] ** -0.5 if weight.dim() == 2 else 0.5
            weight.normal_(0.0, scale, generator=self.generator)
        self.right = copy.deepcopy(model).float()
        self.block, self.right_block = block_of(model), block_of(self.right)
        self.decoder = gpu.FusedDecoder(model, rows=rows, n_tokens=None)
        self.modules = ModuleDecoder(self.right, rows=rows, n_tokens=None)
        slots, numbers = model.config.block_size, torch.arange(rows, device=device)
        self.positions = (slots - 1 - 7 * numbers) % slots
        self.tokens = (model.config.vocab_size - 1 - 11 * numbers) % model.config.vocab_size
        self.modules.cache.read_one(self.positions)
        self.cache, self.right_cache = self.decoder.cache.layers[0], self.modules.cache.layers[0]
        self.right_cache.k.copy_(self.draw(self.cache.k))
        self.right_cache.v.copy_(self.draw(self.cache.v))

    def draw(self, x: Tensor) -> Tensor:
        """Fill `x` with random numbers, and return them in float32."""
        return x.normal_(generator=self.generator).float().clone()


def block_of(model: GPT) -> Block:
    """Return the only block of `model`."""
    block = model.h[0]
    assert isinstance(block, Block)
    return block


def try_embed(trial: Trial) -> Iterator[Pair]:
    trial.decoder.embed(trial.tokens, trial.positions)
    x = trial.right.wte(trial.tokens)
    learned = trial.decoder.frequencies is None
    yield trial.decoder.x, x + trial.right.wpe(trial.positions) if learned else x, trial.tolerance


def try_linear(trial: Trial) -> Iterator[Pair]:
    """Try each kind of product of a step: with a norm, added, with a nonlinearity, capped."""
    decoder, own, right, tolerance = trial.decoder, trial.block, trial.right_block, trial.tolerance
    x, read = trial.draw(decoder.x), trial.draw(decoder.read)
    gpu.apply_linear(decoder.x, own.attn.c_attn, decoder.qkv, norm=own.ln_1)
    yield decoder.qkv, right.attn.c_attn(right.ln_1(x)), tolerance
    gpu.apply_linear(decoder.read, own.attn.c_proj, decoder.x, add=True)
    yield decoder.x, x + right.attn.c_proj(read), tolerance
    x, kind = trial.draw(decoder.x), str(own.mlp.kind)
    gpu.apply_linear(decoder.x, own.mlp.c_fc, decoder.hidden, norm=own.ln_2, kind=kind)
    gpu.apply_linear(decoder.hidden, own.mlp.c_proj, decoder.x, add=True)
    yield decoder.x, x + right.mlp(right.ln_2(x)), tolerance
    x = trial.draw(decoder.x)
    yield decoder.head(), trial.right.head(trial.right.ln_f(x)), tolerance


def try_attend(trial: Trial) -> Iterator[Pair]:
    right, rope = trial.right_block.attn, None
    D, counts = right.head_size, [right.n_head, right.n_kv_head, right.n_kv_head]
    packed = trial.draw(trial.decoder.qkv).view(len(trial.positions), 1, -1, D)
    q, k, v = torch.split(packed.transpose(1, 2), counts, dim=1)
    if trial.decoder.frequencies is not None:
        rope = rope_angles(trial.positions[:, None], D)
    trial.decoder.attend(trial.block.attn, trial.cache, trial.positions)
    read = right.mix(q, k, v, rope, trial.right_cache)[:, 0]
    yield trial.decoder.read, read, trial.tolerance
    yield trial.cache.k, trial.right_cache.k, trial.tolerance
    yield trial.cache.v, trial.right_cache.v, trial.tolerance


def try_step(trial: Trial) -> Iterator[Pair]:
    """Try a whole step: its kernels one after another."""
    given = trial.tokens, trial.positions
    yield trial.decoder.step(*given), trial.modules.step(*given), trial.tolerance


TRIALS: dict[str, Callable[[Trial], Iterator[Pair]]] = {
    "embed": try_embed,
    "linear": try_linear,
    "attend": try_attend,
    "step": try_step,
}
