"""Decoding on a GPU in five kernels a layer, for a step of one token has little to compute.

It reads each weight once, so what counts is how soon the next read starts: norms, biases,
nonlinearities and residual sums are parts of the matrix products, and the rotation of queries and
keys is part of attention. Triton compiles a kernel when it is first called and keeps it on disk.
"""

import math
from dataclasses import dataclass

import torch
import triton
from torch import Tensor, nn

from nanogpt2.decode.decoder import LayerKVCache, ModuleDecoder
from nanogpt2.decode.draw import COLDEST, Controls, draw_tokens, penalise
from nanogpt2.decode_kernels import gpu_kernels as kernels
from nanogpt2.model.gpt import GPT, Attention, Block, rope_frequencies
from nanogpt2.model.operators import QK_EPS


@dataclass(frozen=True)
class Tile:
    """What a program of a matrix product works on: some columns of the output, `depth` at a time.

    The values are the quickest on an H200.
    """

    depth: int
    num_warps: int
    num_stages: int


ONE_ROW = {columns: Tile(1024, 4, 1) for columns in (4, 8, 16)}  # by the number of columns
MANY_ROWS = {16: Tile(128, 4, 4), 32: Tile(128, 8, 3), 64: Tile(64, 4, 4)}
MANY_FLOAT32_ROWS = {16: Tile(32, 4, 4), 32: Tile(32, 4, 4)}
ROWS = 32  # that share one read of the weights, at most
PRECISION = "tf32x3"  # of float32 products of many rows: three products, as exact as one
SLOTS, ATTENTION_WARPS = 128, 8  # slots of the cache that are read at once
PART = 1024  # logits that one program sums


class FusedDecoder(ModuleDecoder):
    """Decodes with kernels of its own; what reads many tokens at once is `ModuleDecoder`'s."""

    def __init__(self, model: GPT, *, rows: int, n_tokens: int | None) -> None:
        super().__init__(model, rows=rows, n_tokens=n_tokens)
        config, weight = model.config, model.wte.weight
        first = model.h[0]
        assert isinstance(first, Block)
        self.frequencies = None
        if config.positions == "rotary":
            self.frequencies = rope_frequencies(first.attn.head_size, weight.device)
        self.x = weight.new_empty(rows, config.n_embd)
        self.qkv = weight.new_empty(rows, first.attn.c_attn.out_features)
        self.read = weight.new_empty(rows, config.n_embd)
        self.hidden = weight.new_empty(rows, first.mlp.c_proj.in_features)

    def reach(self, length: int) -> int:  # one graph for all lengths
        """Return the length of the cache: `step` reads as much of it as each row has filled."""
        return len(self.cache.slot_numbers)

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Add one token to each row: `tokens` (B,) at `positions` (B,); return logits (B, V)."""
        positions = positions.contiguous()
        self.embed(tokens.contiguous(), positions)
        for block, cache in zip(self.model.h, self.cache.layers, strict=True):
            assert isinstance(block, Block)
            attention, mlp = block.attn, block.mlp
            apply_linear(self.x, attention.c_attn, self.qkv, norm=block.ln_1)
            self.attend(attention, cache, positions)
            apply_linear(self.read, attention.c_proj, self.x, add=True)
            if block.mlp_conv is None:
                apply_linear(self.x, mlp.c_fc, self.hidden, norm=block.ln_2, kind=str(mlp.kind))
            else:
                self.cache.read_one(positions)
                mixed = cache.mix_tokens(block.ln_2(self.x)[:, None], block.mlp_conv)[:, 0]
                apply_linear(mixed, mlp.c_fc, self.hidden, kind=str(mlp.kind))
            apply_linear(self.hidden, mlp.c_proj, self.x, add=True)
        return self.head()

    def head(self) -> Tensor:
        """Return the logits (B, V) of `x`."""
        model, cap = self.model, float(self.model.config.logit_softcap or 0)
        head = model.head_weight[: self.n_tokens]
        logits = torch.empty(len(self.x), len(head), device=head.device)
        multiply(self.x, head, None, logits, norm=model.ln_f, kind="cap" if cap else "", cap=cap)
        return logits

    def embed(self, tokens: Tensor, positions: Tensor) -> None:
        """Write the embeddings of `tokens` (B,) at `positions` (B,) to `x`."""
        rows, C = self.x.shape
        wpe = None if self.frequencies is not None else self.model.wpe.weight
        grid = (rows, triton.cdiv(C, PART))
        wte = self.model.wte.weight
        kernels.embed[grid](tokens, positions, wte, wpe, self.x, C, COLUMNS=PART)

    def attend(self, attention: Attention, cache: LayerKVCache, positions: Tensor) -> None:
        """Write what the queries of `qkv` read of the cache to `read`; keep keys and values."""
        D = attention.head_size
        kernels.attend[(len(positions), attention.n_head)](
            self.qkv, cache.k, cache.v, self.frequencies, positions, self.read, cache.k.shape[2],
            SCALE=1 / math.sqrt(D), EPS=QK_EPS, NORMED=attention.qk_norm,
            HEADS=attention.n_head, KV_HEADS=attention.n_kv_head, D=D, SLOTS=SLOTS,
            COLUMNS=triton.next_power_of_2(D), num_warps=ATTENTION_WARPS,
        )  # fmt: skip


def apply_linear(
    x: Tensor,
    layer: nn.Linear,
    out: Tensor,
    *,
    norm: nn.Module | None = None,
    kind: str = "",
    add: bool = False,
) -> None:
    """Write what `layer` makes of `x` (B, K) to `out` (B, N), or with `add` add it there."""
    multiply(x, layer.weight, layer.bias, out, norm=norm, kind=kind, add=add)


def multiply(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    out: Tensor,
    *,
    norm: nn.Module | None = None,
    kind: str = "",
    cap: float = 0.0,
    add: bool = False,
) -> None:
    """Write kind(norm(x) @ weight.T + bias) to `out` (B, N), or with `add` add it there.

    `kind` is an MLP's, or "cap" for logits, or "" for none.
    """
    (rows, K), N = x.shape, out.shape[1]
    assert norm is None or isinstance(norm, nn.LayerNorm | nn.RMSNorm)
    many = MANY_FLOAT32_ROWS if x.dtype == torch.float32 else MANY_ROWS
    tiles, programs = (ONE_ROW, 264) if rows == 1 else (many, 96)
    sharing = 1 if rows == 1 else 16 if rows <= 16 else ROWS  # tensor cores take 16 at least
    columns = min(max(triton.next_power_of_2(max(1, N // programs)), min(tiles)), max(tiles))
    tile = tiles[columns]
    kernels.linear[(triton.cdiv(N, columns), triton.cdiv(rows, sharing))](
        x, weight, bias,
        None if norm is None else norm.weight, getattr(norm, "bias", None),
        out if add else None, out, rows, N, K=K,
        EPS=0.0 if norm is None else float(norm.eps or 0),
        CENTRED=isinstance(norm, nn.LayerNorm), KIND=kind, CAP=cap, PRECISION=PRECISION,
        ROWS=sharing, COLUMNS=columns, DEPTH=min(tile.depth, max(16, triton.next_power_of_2(K))),
        num_warps=tile.num_warps, num_stages=tile.num_stages,
    )  # fmt: skip


def draw_fused(
    logits: Tensor, uniforms: Tensor, controls: Controls, *, seen: Tensor | None = None
) -> Tensor:
    """Return what `draw_tokens` does, in two kernels where all tokens may be drawn."""
    filters = (controls.top_k, controls.top_p, controls.min_p)
    if controls.temperature == 0 or any(filters):
        return draw_tokens(logits, uniforms, controls, seen=seen)
    if seen is not None:
        logits = penalise(logits, seen, controls.repetition_penalty)
    rows, V = logits.shape
    count = triton.cdiv(V, PART)
    highs = logits.new_empty(rows, count)
    sums = logits.new_empty(rows, count, dtype=torch.float64)
    tokens = torch.empty(rows, dtype=torch.long, device=logits.device)
    temperature = max(controls.temperature, COLDEST)
    kernels.sum_parts[(rows, count)](logits, highs, sums, temperature, V, PART=PART)
    kernels.pick[(rows,)](
        logits, uniforms, highs, sums, tokens, temperature, V, count,
        PARTS=triton.next_power_of_2(count), PART=PART,
    )  # fmt: skip
    return tokens
