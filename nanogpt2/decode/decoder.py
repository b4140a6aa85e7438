"""Decoding one token at a time over a static key-value cache, for any model and device.

The cache is allocated once. Position p lies in slot p modulo its length, so that a model without
learned positions may go on past the end: the oldest token is overwritten and the window slides.
"""

import math
import weakref
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.model.gpt import GPT
from nanogpt2.model.operators import TORCH

SHORTEST = 128  # tokens; attention reads the cache up to the next power of two


class Decoder(Protocol):
    """What generation asks of a decoder; rows 0 .. B - 1 hold the samples."""

    def encode(self, tokens: Tensor, row: int) -> Tensor:
        """Put `tokens` (T,) into `row`, from position 0; return the last's logits (V,)."""

    def copy_row(self, source: int, rows: Sequence[int], length: int) -> None:
        """Make each of `rows` hold the first `length` tokens of the row `source`."""

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Add one token to each row: `tokens` (B,) at `positions` (B,); return logits (B, V)."""

    def last_logits(self, idx: Tensor) -> Tensor:
        """Return the logits (B, V) after each row of `idx` (B, T), without the cache."""

    def reach(self, length: int) -> int:
        """Let `step` read up to `length` tokens or more; return how many.

        A CUDA graph of `step` is of use for one such number alone.
        """


class MakeDecoder(Protocol):
    """Makes a decoder for a number of samples side by side."""

    def __call__(self, *, rows: int) -> Decoder: ...


class LayerKVCache:
    """Keys and values of one layer: k and v are (B, heads, slots, D).

    And what mlp_conv, where there is one, has read: (B, slots, C).
    """

    def __init__(self, owner: "KVCache", k: Tensor, v: Tensor, read: Tensor) -> None:
        self.owner, self.k, self.v, self.read = owner, k, v, read

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Keep `k` and `v` (B, heads, T, D); return what `q` reads of all kept: as q's shape."""
        if self.owner.row is not None:
            return self._attend_from_start(q, k, v, self.owner.row)
        return self._attend_one(q, k, v)

    def mix_tokens(self, x: Tensor, weight: Tensor) -> Tensor:
        """Keep `x` (B, T, C); return what the operator does of it and what was kept before."""
        owner = self.owner
        if owner.row is not None:
            self.read[owner.row, : x.shape[1]] = x[0]
            return TORCH.mix_tokens(x, weight)
        self.read.index_put_((owner.rows, owner.slots), x)
        places = owner.positions - owner.slot_numbers[: len(weight)]  # (B, taps)
        seen = self.read[owner.rows, places % len(owner.slot_numbers)]
        factors = weight[: places.shape[1], 0] * (places >= 0)[..., None]
        return x + (seen * factors).sum(dim=1, keepdim=True)

    def _attend_from_start(self, q: Tensor, k: Tensor, v: Tensor, row: int) -> Tensor:
        T = k.shape[2]
        self.k[row, :, :T], self.v[row, :, :T] = k[0], v[0]
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)

    def _attend_one(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from one token a row; plain products beat the fused kernel at one query."""
        B, heads, _, D = q.shape
        owner, kv_heads = self.owner, k.shape[1]
        self.k.index_put_((owner.rows, owner.heads, owner.slots), k[:, :, 0])
        self.v.index_put_((owner.rows, owner.heads, owner.slots), v[:, :, 0])
        q = q.reshape(B * kv_heads, -1, D)  # query heads that share keys
        keys, values = (kept[:, :, : owner.limit].flatten(0, 1) for kept in (self.k, self.v))
        scores = torch.baddbmm(owner.mask, q, keys.mT, alpha=1 / math.sqrt(D))
        return torch.bmm(scores.softmax(dim=-1), values).view(B, heads, 1, D)


class KVCache:
    """The key-value cache of a model: `layers` hold it, the rest says what is being read."""

    def __init__(self, model: GPT, *, rows: int) -> None:
        config, weight = model.config, model.wte.weight
        heads = getattr(config, "n_kv_head", None) or config.n_head
        shape = (2, rows, heads, config.block_size, config.n_embd // config.n_head)
        stored = [weight.new_zeros(shape) for _ in range(config.n_layer)]
        slots = config.block_size if config.mlp_conv else 0
        read = [weight.new_zeros(rows, slots, config.n_embd) for _ in stored]
        owner = weakref.proxy(self)  # so that the memory is given back at once
        self.layers = [LayerKVCache(owner, k, v, x) for (k, v), x in zip(stored, read, strict=True)]
        self.rows = torch.arange(rows, device=weight.device)[:, None]
        self.heads = torch.arange(heads, device=weight.device)
        self.slot_numbers = torch.arange(config.block_size, device=weight.device)
        self.limit = config.block_size  # slots that attention reads
        self.row: int | None = None  # the row being filled from its start; None: one token each

    def read_start(self, row: int, length: int) -> None:
        """Say that tokens 0 .. length - 1 of `row` come next."""
        self.row = row
        self.positions = self.slot_numbers[None, :length]

    def read_one(self, positions: Tensor) -> None:
        """Say that one token a row comes next, at `positions` (B,)."""
        self.row = None
        self.positions = positions[:, None]
        self.slots = self.positions % len(self.slot_numbers)
        empty = self.slot_numbers[: self.limit] > self.positions  # (B, slots)
        mask = torch.zeros_like(empty, dtype=self.layers[0].k.dtype).masked_fill_(empty, -math.inf)
        mask = mask[:, None].expand(-1, len(self.heads), -1)
        self.mask = mask.reshape(-1, 1, self.limit)  # (B * heads, 1, slots)


class ModuleDecoder:
    """Decodes with the model's own modules; on CUDA its step can be captured as a graph."""

    begins_with_step = False  # whether `encode` reads one token as `step` does

    def __init__(self, model: GPT, *, rows: int, n_tokens: int | None) -> None:
        self.model, self.n_tokens = model, n_tokens
        self.cache = KVCache(model, rows=rows)

    def encode(self, tokens: Tensor, row: int) -> Tensor:
        """Put `tokens` (T,) into `row`, from position 0; return the last's logits (V,)."""
        self.cache.read_start(row, len(tokens))
        return self._logits(self.model.hidden(tokens[None], self.cache))[0]

    def copy_row(self, source: int, rows: Sequence[int], length: int) -> None:
        """Make each of `rows` hold the first `length` tokens of the row `source`."""
        numbers = torch.tensor(rows, device=self.cache.rows.device)
        for layer in self.cache.layers:
            for kept in (layer.k, layer.v):
                kept[numbers, :, :length] = kept[source, :, :length].clone()
            layer.read[numbers, :length] = layer.read[source, :length].clone()

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Add one token to each row: `tokens` (B,) at `positions` (B,); return logits (B, V)."""
        self.cache.read_one(positions)
        return self._logits(self.model.hidden(tokens[:, None], self.cache))

    def last_logits(self, idx: Tensor) -> Tensor:
        """Return the logits (B, V) after each row of `idx` (B, T), without the cache."""
        return self._logits(self.model.hidden(idx))

    def reach(self, length: int) -> int:
        """Let `step` read up to `length` tokens or more; return how many."""
        slots = len(self.cache.slot_numbers)
        self.cache.limit = min(max(SHORTEST, 1 << (length - 1).bit_length()), slots)
        return self.cache.limit

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.model.head(hidden[:, -1])[:, : self.n_tokens].float()
