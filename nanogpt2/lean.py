"""GPT-2's function with few operations, for the CPU, where each operation costs microseconds.

The weights are folded once. Only layer norms read the residual stream, and they do not see its
mean, so everything written to it is centred: a norm is then one division by the root mean square.
Its gain and bias move into the linear layer that follows, as do 1/sqrt(D) of attention and the
constants of GELU. Rounding aside, the logits are the model's.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from nanogpt2.model import GPT, MLP, Attention, Block

Array = npt.NDArray[np.float32]

CUBIC = 0.044715  # GPT-2's GELU: h/2 * (1 + tanh(sqrt(2/pi) * (h + CUBIC * h^3)))
SCALE = (math.sqrt(2 / math.pi) * CUBIC) ** (1 / 3)  # in u = SCALE * h the cubic term is u^3
LINEAR = math.sqrt(2 / math.pi) / SCALE  # and the linear one LINEAR * u
QUERIES = 64  # attended at once when a window is read: keys after the last are not touched


@dataclass(frozen=True)
class Linear:
    """x @ weight + bias, the weight (in, out) contiguous: the quickest layout for one row."""

    weight: Tensor
    bias: Array

    def __call__(self, x: Array) -> Array:
        product = torch.mm(torch.from_numpy(x), self.weight).numpy()
        product += self.bias
        return product  # type: ignore[no-any-return]

    def after_norm(self, x: Array, norm: Array) -> Array:
        """Return the layer's output for x / norm, (R, out), with norm (R, 1)."""
        product = torch.mm(torch.from_numpy(x), self.weight).numpy()
        product /= norm
        product += self.bias
        return product  # type: ignore[no-any-return]


@dataclass(frozen=True)
class LeanBlock:
    """The four linear layers of a block, folded."""

    qkv: Linear
    attention_out: Linear
    mlp_in: Linear
    mlp_out: Linear


def is_plain(model: GPT) -> bool:
    """Return whether `model` is GPT-2 as the paper has it, in float32 on the CPU."""
    weight = model.wte.weight
    parts = {type(part) for block in model.h for part in (block.attn, block.mlp, block.ln_1)}
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and {type(block) for block in model.h} == {Block}
        and parts == {Attention, MLP, nn.LayerNorm}
    )


class LeanDecoder:
    """Decodes a plain GPT-2 on the CPU, with a copy of its weights; see `Decoder`."""

    def __init__(self, model: GPT, *, rows: int, n_tokens: int | None) -> None:
        config = model.config
        self.n_head, self.eps = config.n_head, model.ln_f.eps
        self.embedding = centred(model.wte.weight).numpy()
        self.position_embedding = centred(model.wpe.weight).numpy()
        self.blocks = [fold_block(block, config.n_head) for block in model.h]
        self.head = fold(model.wte.weight[:n_tokens], None, after=model.ln_f)
        # keys, then values, of each token
        shape = (config.n_layer, rows, config.block_size, 2 * config.n_embd)
        self.cache = np.zeros(shape, dtype=np.float32)
        self.mean = np.full((config.n_embd, 1), 1 / config.n_embd, dtype=np.float32)
        self.row_starts = np.arange(rows) * config.block_size

    def encode(self, tokens: Tensor, row: int) -> Tensor:
        """Put `tokens` (T,) into the empty `row`, from position 0; return the last's logits (V,)."""
        return torch.from_numpy(self._read(tokens.numpy(), self.cache[:, row]))

    def copy_row(self, source: int, row: int) -> None:
        """Make `row` hold what `source` holds."""
        self.cache[:, row] = self.cache[:, source]

    def reach(self, length: int) -> bool:
        """Return False: `step` reads what it needs at any length."""
        return False

    def last_logits(self, idx: Tensor) -> Tensor:
        """Return the logits (B, V) after each row of `idx` (B, T), without the cache."""
        layers, _, _, width = self.cache.shape
        aside = np.empty((layers, idx.shape[1], width), dtype=np.float32)
        return torch.from_numpy(np.stack([self._read(row, aside) for row in idx.numpy()]))

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Add one token to each row: `tokens` (B,) at `positions` (B,); return logits (B, V)."""
        at = positions.numpy()
        x = self.embedding[tokens.numpy()]
        x += self.position_embedding[at]
        length = int(at.max()) + 1
        unequal = len(at) > 1 and length > int(at.min()) + 1
        after = np.arange(length)[None, None, None] > at[:, None, None, None] if unequal else None
        slots = self.row_starts + at
        for block, cache in zip(self.blocks, self.cache, strict=True):
            qkv = block.qkv.after_norm(x, self._norm(x))
            q, kv = qkv[:, : x.shape[1]], qkv[:, x.shape[1] :]
            cache.reshape(-1, cache.shape[-1])[slots] = kv
            x += block.attention_out(self._attend(q[:, None], cache[:, :length], after))
            x += self._mlp(block, x)
        return torch.from_numpy(self.head.after_norm(x, self._norm(x)))

    def _read(self, tokens: npt.NDArray[np.int64], cache: Array) -> Array:
        """Return the logits (V,) after `tokens` (T,); keys and values go to `cache` (L, T.., 2C).

        In the last layer only the last token's query matters.
        """
        T = len(tokens)
        x = self.embedding[tokens]
        x += self.position_embedding[:T]
        C = x.shape[1]
        for number, (block, kept) in enumerate(zip(self.blocks, cache, strict=True), start=1):
            qkv = block.qkv.after_norm(x, self._norm(x))
            kept[:T] = qkv[:, C:]
            first = T - 1 if number == len(self.blocks) else 0
            x = x[first:]
            x += block.attention_out(self._attend_window(qkv[:, :C], kept, first, T))
            x += self._mlp(block, x)
        logits: Array = self.head.after_norm(x, self._norm(x))[0]
        return logits

    def _attend_window(self, q: Array, kept: Array, first: int, T: int) -> Array:
        """Return what the queries first .. T - 1 read: (T - first, C)."""
        parts = []
        for start in range(first, T, QUERIES):
            end = min(start + QUERIES, T)
            after = np.arange(end)[None] > np.arange(start, end)[:, None]
            parts.append(self._attend(q[None, start:end], kept[None, :end], after))
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _attend(self, q: Array, kv: Array, after: npt.NDArray[np.bool_] | None) -> Array:
        """Return what `q` (B, Q, C) reads of `kv` (B, K, 2C): (B * Q, C).

        `after` says which keys a query does not see, broadcast to (B, heads, Q, K).
        """
        B, Q, C = q.shape
        D = C // self.n_head
        heads = kv.reshape(B, -1, 2, self.n_head, D)
        keys, values = heads[:, :, 0].transpose(0, 2, 3, 1), heads[:, :, 1].transpose(0, 2, 1, 3)
        scores = np.matmul(q.reshape(B, Q, self.n_head, D).transpose(0, 2, 1, 3), keys)
        if after is not None:
            np.putmask(scores, np.broadcast_to(after, scores.shape), -np.inf)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        y = np.matmul(scores, values)
        y /= scores.sum(axis=-1, keepdims=True)
        return y.transpose(0, 2, 1, 3).reshape(B * Q, C)

    def _mlp(self, block: LeanBlock, x: Array) -> Array:
        u = block.mlp_in.after_norm(x, self._norm(x))
        activated = u * u
        activated += LINEAR
        activated *= u
        np.tanh(activated, out=activated)
        activated += 1
        activated *= u
        return block.mlp_out(activated)

    def _norm(self, x: Array) -> Array:
        """Return the root mean square of each row of `x`, (R, 1)."""
        norm: Array = np.dot(x * x, self.mean)
        norm += self.eps
        return np.sqrt(norm, out=norm)


def centred(weight: Tensor) -> Tensor:
    """Return `weight` (N, C) less each row's mean."""
    weight = weight.detach()
    return weight - weight.mean(dim=1, keepdim=True)


def fold(
    weight: Tensor,
    bias: Tensor | None,
    *,
    after: nn.LayerNorm | None = None,
    scale: Tensor | float = 1.0,
    writes_residual: bool = False,
) -> Linear:
    """Return the linear layer of `weight` (out, in), with what surrounds it folded in.

    `after` is the norm before it; `scale` multiplies its output, or each part of it.
    """
    weight = weight.detach().double()
    offset = weight.new_zeros(len(weight)) if bias is None else bias.detach().double()
    if after is not None:
        if after.bias is not None:
            offset = offset + weight @ after.bias.detach().double()
        weight = weight * after.weight.detach().double()
    weight, offset = (weight.mT * scale).contiguous(), offset * scale
    if writes_residual:
        weight, offset = centred(weight), centred(offset[None])[0]
    return Linear(weight.float(), offset.float().numpy())


def fold_block(block: nn.Module, n_head: int) -> LeanBlock:
    """Return the linear layers of `block`, folded."""
    assert isinstance(block, Block)
    attn, mlp = block.attn, block.mlp
    C = attn.c_proj.weight.shape[0]
    scale = torch.ones(3 * C, dtype=torch.float64)
    scale[:C] = math.sqrt(n_head / C)  # queries carry attention's 1/sqrt(D)
    # GELU leaves 2 * SCALE times its value
    mlp_out = fold(mlp.c_proj.weight * (0.5 / SCALE), mlp.c_proj.bias, writes_residual=True)
    return LeanBlock(
        qkv=fold(attn.c_attn.weight, attn.c_attn.bias, after=block.ln_1, scale=scale),
        attention_out=fold(attn.c_proj.weight, attn.c_proj.bias, writes_residual=True),
        mlp_in=fold(mlp.c_fc.weight, mlp.c_fc.bias, after=block.ln_2, scale=SCALE),
        mlp_out=mlp_out,
    )
