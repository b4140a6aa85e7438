"""GPT-2's function with few operations, for the CPU, where each operation costs microseconds.

The weights are folded once. Only layer norms read the residual stream, and they do not see its
mean, so everything written to it is centred: a norm is then one division by the root mean square.
Its gain and bias move into the linear layer that follows, as do 1/sqrt(D) of attention and the
constants of GELU. Rounding aside, the logits are the model's.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.config.schema import ARCHITECTURES
from nanogpt2.model.gpt import GPT, MLP, Attention, Block

Array = npt.NDArray[np.float32]

CUBIC = 0.044715  # GPT-2's GELU: h/2 * (1 + tanh(sqrt(2/pi) * (h + CUBIC * h^3)))
SCALE = (math.sqrt(2 / math.pi) * CUBIC) ** (1 / 3)  # in u = SCALE * h the cubic term is u^3
LINEAR = math.sqrt(2 / math.pi) / SCALE  # and the linear one LINEAR * u


@dataclass(frozen=True)
class Linear:
    """x @ weight + bias, the weight (in, out) contiguous: the quickest layout for one row."""

    weight: Tensor
    bias: Array


@dataclass(frozen=True)
class LeanBlock:
    """The four linear layers of a block, folded."""

    qkv: Linear
    attention_out: Linear
    mlp_in: Linear
    mlp_out: Linear


def is_plain(model: GPT) -> bool:
    """Return whether `model` is GPT-2 as the paper has it, in float32 on the CPU."""
    weight, config = model.wte.weight, model.config
    parts = {type(part) for block in model.h for part in (block.attn, block.mlp, block.ln_1)}
    return (
        config == replace(config, architecture="gpt2", **without_bias(ARCHITECTURES["gpt2"]))
        and config.n_kv_head == config.n_head
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and {type(block) for block in model.h} == {Block}
        and parts == {Attention, MLP, nn.LayerNorm}
    )


def without_bias(parts: dict[str, Any]) -> dict[str, Any]:
    """Return `parts` less the bias, which may be there or not."""
    return {name: part for name, part in parts.items() if name != "bias"}


class Shared:
    """One piece of memory as a tensor, whose products are quick, and as an array, for the rest."""

    def __init__(self, rows: int, width: int) -> None:
        self.tensor = torch.empty(rows, width)
        self.array: Array = self.tensor.numpy()


class Workspace:
    """Activations of R rows, allocated once; layers take turns in them."""

    def __init__(self, rows: int, n_embd: int, *, eps: float) -> None:
        self.rows, self.n_embd, self.eps = rows, n_embd, eps
        self.x = Shared(rows, n_embd)  # the residual stream
        self.qkv = Shared(rows, 3 * n_embd)
        self.read = Shared(rows, n_embd)  # what attention read
        self.hidden = Shared(rows, 4 * n_embd)
        self.activated = Shared(rows, 4 * n_embd)
        self.squares = np.empty((rows, n_embd), dtype=np.float32)
        self.mean = np.full((n_embd, 1), 1 / n_embd, dtype=np.float32)

    def norm(self) -> Array | float:
        """Return the root mean square of each row of x: (R, 1), or a number for one row."""
        if self.rows == 1:
            row = self.x.array[0]
            return math.sqrt(float(np.dot(row, row)) / self.n_embd + self.eps)
        norm: Array = np.dot(np.multiply(self.x.array, self.x.array, out=self.squares), self.mean)
        norm += self.eps
        return np.sqrt(norm, out=norm)

    def read_normed(self, linear: Linear, out: Shared) -> None:
        """Write what `linear` makes of the normed x to `out`."""
        torch.mm(self.x.tensor, linear.weight, out=out.tensor)
        out.array /= self.norm()
        out.array += linear.bias

    def add(self, linear: Linear, source: Shared) -> None:
        """Add what `linear` makes of `source` to x."""
        self.x.tensor.addmm_(source.tensor, linear.weight)
        self.x.array += linear.bias

    def add_mlp(self, block: LeanBlock) -> None:
        """Add what the MLP makes of x to x."""
        self.read_normed(block.mlp_in, self.hidden)
        u, activated = self.hidden.array, self.activated.array
        np.multiply(u, u, out=activated)
        activated += LINEAR
        activated *= u
        np.tanh(activated, out=activated)
        activated += 1
        activated *= u
        self.add(block.mlp_out, self.activated)

    def make_logits(self, head: Linear) -> Tensor:
        """Return the logits (R, V) of x."""
        logits = Shared(self.rows, head.weight.shape[1])
        self.read_normed(head, logits)
        return logits.tensor


class LeanWeights:
    """A folded copy of a plain GPT-2's weights, for any number of decoders.

    Logits are made for the first `n_tokens` tokens, or all.
    """

    def __init__(self, model: GPT, *, n_tokens: int | None) -> None:
        config = model.config
        self.n_layer, self.n_head, self.n_embd = config.n_layer, config.n_head, config.n_embd
        self.block_size, self.eps = config.block_size, layer_norm(model.ln_f).eps
        self.embedding = centred(model.wte.weight).numpy()
        self.position_embedding = centred(model.wpe.weight).numpy()
        self.blocks = [fold_block(block, config.n_head) for block in model.h]
        self.head = fold(model.wte.weight[:n_tokens], None, after=layer_norm(model.ln_f))


class LeanDecoder:
    """Decodes a plain GPT-2 on the CPU; see `Decoder`."""

    def __init__(self, weights: LeanWeights, *, rows: int) -> None:
        self.weights, self.blocks = weights, weights.blocks
        self.n_head, self.n_embd = weights.n_head, weights.n_embd
        # keys, then values, of each token
        shape = (weights.n_layer, rows, weights.block_size, 2 * weights.n_embd)
        self.cache = np.zeros(shape, dtype=np.float32)
        self.spare: Array = self.cache[:, 0, :0]  # a row for windows that are not kept
        self.row_starts = np.arange(rows) * weights.block_size
        self.workspaces: dict[int, Workspace] = {}

    def encode(self, tokens: Tensor, row: int) -> Tensor:
        """Put `tokens` (T,) into `row`, from position 0; return the last's logits (V,)."""
        return self._read(tokens.numpy(), self.cache[:, row])

    def copy_row(self, source: int, row: int) -> None:
        """Make `row` hold what `source` holds."""
        self.cache[:, row] = self.cache[:, source]

    def reach(self, length: int) -> int:
        """Return `length`: `step` reads what it needs."""
        return length

    def last_logits(self, idx: Tensor) -> Tensor:
        """Return the logits (B, V) after each row of `idx` (B, T), without the cache."""
        if not self.spare.size:
            self.spare = np.zeros_like(self.cache[:, 0])
        return torch.stack([self._read(row, self.spare) for row in idx.numpy()])

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Add one token to each row: `tokens` (B,) at `positions` (B,); return logits (B, V)."""
        space = self._workspace(len(tokens))
        slots = positions.numpy()
        length, shortest = int(slots.max()) + 1, int(slots.min()) + 1
        after = None
        if shortest < length:
            after = np.arange(length) > slots[:, None, None, None]  # (B, 1, 1, length)
        self._embed(space, tokens.numpy(), slots)
        slots = slots + self.row_starts
        for block, cache in zip(self.blocks, self.cache, strict=True):
            space.read_normed(block.qkv, space.qkv)
            cache.reshape(-1, 2 * self.n_embd)[slots] = space.qkv.array[:, self.n_embd :]
            self._attend_one(space, cache[:, :length], after)
            space.add(block.attention_out, space.read)
            space.add_mlp(block)
        return space.make_logits(self.weights.head)

    def _workspace(self, rows: int) -> Workspace:
        if rows not in self.workspaces:
            self.workspaces[rows] = Workspace(rows, self.n_embd, eps=self.weights.eps)
        return self.workspaces[rows]

    def _embed(
        self, space: Workspace, tokens: npt.NDArray[np.int64], at: npt.NDArray[np.int64]
    ) -> None:
        # with "clip", take writes straight to out
        self.weights.embedding.take(tokens, axis=0, out=space.x.array, mode="clip")
        space.x.array += self.weights.position_embedding[at]

    def _attend_one(self, space: Workspace, kv: Array, after: npt.NDArray[np.bool_] | None) -> None:
        """Write what each row's query reads of its `kv` (B, K, 2C), but `after`, to space.read."""
        B, K = kv.shape[:2]
        D = self.n_embd // self.n_head
        heads = kv.reshape(B, K, 2, self.n_head, D).transpose(2, 0, 3, 1, 4)  # (2, B, heads, K, D)
        q = space.qkv.array[:, : self.n_embd].reshape(B, self.n_head, 1, D)
        scores = np.matmul(q, heads[0].swapaxes(2, 3))
        if after is not None:
            np.putmask(scores, np.broadcast_to(after, scores.shape), -np.inf)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        np.matmul(scores, heads[1], out=space.read.array.reshape(B, self.n_head, 1, D))

    def _read(self, tokens: npt.NDArray[np.int64], cache: Array) -> Tensor:
        """Return the logits (V,) after `tokens` (T,); keys and values go to `cache` (L, T.., 2C).

        In the last layer only the last token's query matters.
        """
        T, C = len(tokens), self.n_embd
        space, last = self._workspace(T), self._workspace(1)
        self._embed(space, tokens, np.arange(T))
        for block, kept in zip(self.blocks, cache, strict=True):
            space.read_normed(block.qkv, space.qkv)
            kept[:T] = space.qkv.array[:, C:]
            if block is self.blocks[-1]:
                break
            self._attend_all(space)
            space.add(block.attention_out, space.read)
            space.add_mlp(block)
        last.x.array[0], last.qkv.array[0] = space.x.array[-1], space.qkv.array[-1]
        self._attend_one(last, kept[None, :T], None)
        last.add(block.attention_out, last.read)
        last.add_mlp(block)
        return last.make_logits(self.weights.head)[0]

    def _attend_all(self, space: Workspace) -> None:
        """Write what every query of one sample reads of it and the tokens before to space.read."""
        q, k, v = space.qkv.tensor.view(1, space.rows, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
        space.read.tensor.copy_(y.transpose(1, 2).reshape(space.rows, -1))


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
    folded = weight.detach().mT.contiguous()
    offset = folded.new_zeros(folded.shape[1]) if bias is None else bias.detach()
    if after is not None:
        if after.bias is not None:
            offset = offset + after.bias.detach() @ folded
        folded *= after.weight.detach()[:, None]
    folded *= scale
    offset = offset * scale
    if writes_residual:
        folded -= folded.mean(dim=1, keepdim=True)
        offset -= offset.mean()
    return Linear(folded, offset.numpy())


def layer_norm(module: nn.Module) -> nn.LayerNorm:
    """Return `module`, which `is_plain` has found to be a layer norm."""
    assert isinstance(module, nn.LayerNorm)
    return module


def fold_block(block: nn.Module, n_head: int) -> LeanBlock:
    """Return the linear layers of `block`, folded."""
    assert isinstance(block, Block)
    attn, mlp = block.attn, block.mlp
    C = attn.c_proj.weight.shape[0]
    scale = torch.ones(3 * C)
    scale[:C] = math.sqrt(n_head / C)  # queries carry attention's 1/sqrt(D)
    mlp_out = fold(mlp.c_proj.weight, mlp.c_proj.bias, writes_residual=True)
    mlp_out.weight.mul_(0.5 / SCALE)  # `add_mlp` leaves 2 * SCALE times GELU's value
    return LeanBlock(
        qkv=fold(attn.c_attn.weight, attn.c_attn.bias, after=layer_norm(block.ln_1), scale=scale),
        attention_out=fold(attn.c_proj.weight, attn.c_proj.bias, writes_residual=True),
        mlp_in=fold(mlp.c_fc.weight, mlp.c_fc.bias, after=layer_norm(block.ln_2), scale=SCALE),
        mlp_out=mlp_out,
    )
