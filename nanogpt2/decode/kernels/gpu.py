"""Decoding on a GPU in five kernels a layer, for a step of one token has little to compute.

It reads each weight once, so what counts is how soon the next read starts: norms, biases,
nonlinearities and residual sums are parts of the matrix products, and the rotation of queries and
keys is part of attention. Triton compiles a kernel when it is first called and keeps it on disk.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
import triton
from torch import Tensor, nn

from nanogpt2.decode.decoder import LayerKVCache, ModuleDecoder
from nanogpt2.decode.draw import COLDEST, Controls, Drawn, draw_tokens, penalise
from nanogpt2.decode.kernels import gpu_kernels as kernels
from nanogpt2.model.gpt import GPT, Attention, Block, rope_frequencies
from nanogpt2.model.operators import QK_EPS, cap_logits


@dataclass(frozen=True)
class Tile:
    """What a program of a matrix product works on: some columns of the output, `depth` at a time.

    The values are the quickest on an H200.
    """

    depth: int
    num_warps: int
    num_stages: int


DEEPEST, PROGRAMS = 4096, 192  # of one row: the widest tile, and as many programs at least
ROWS, MANY_ROWS_DEPTH = 32, 32  # rows that share one read of the weights, at most
MOST_FLOAT32_ROWS = 64  # beyond that, and of 16 bits beyond one, torch's products are quicker
PRECISION = "tf32x3"  # of float32 products of many rows: three products, as exact as one
READING = {1: (256, 8), 32: (64, 4)}  # slots at once and warps, for so many rows at most
READING_MANY = 16, 1
ALIGNED = 8  # rows of a weight, of which cuBLAS takes multiples much more quickly
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
        self.begins_with_step = rows == 1
        self.is_narrow = rows <= (MOST_FLOAT32_ROWS if weight.dtype == torch.float32 else 1)
        self.head_weight = head = model.head_weight.detach()[:n_tokens]
        self.n_logits = len(head)
        if not self.is_narrow and len(head) % ALIGNED:
            self.head_weight = F.pad(head, (0, 0, 0, -len(head) % ALIGNED))
        self.x = weight.new_empty(rows, config.n_embd)
        self.qkv = weight.new_empty(rows, first.attn.c_attn.out_features)
        self.read = weight.new_empty(rows, config.n_embd)
        self.hidden = weight.new_empty(rows, first.mlp.c_proj.in_features)

    def reach(self, length: int) -> int:  # one graph for all lengths
        """Return the length of the cache: `step` reads as much of it as each row has filled."""
        return len(self.cache.slot_numbers)

    def encode(self, tokens: Tensor, row: int) -> Tensor:
        """Put `tokens` (T,) into `row`, from position 0; return the last's logits (V,)."""
        if self.begins_with_step and len(tokens) == 1:
            return self.step(tokens, torch.zeros_like(tokens))[0]
        return super().encode(tokens, row)

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Add one token to each row: `tokens` (B,) at `positions` (B,); return logits (B, V)."""
        positions = positions.contiguous()
        self.embed(tokens.contiguous(), positions)
        go_through = self.read_block if self.is_narrow else self.read_block_by_torch
        for block, kept in zip(self.model.h, self.cache.layers, strict=True):
            assert isinstance(block, Block)
            go_through(block, kept, positions)
        return self.head()

    def read_block(self, block: Block, cache: LayerKVCache, positions: Tensor) -> None:
        """Let `x` go through `block` in five kernels."""
        attention, mlp = block.attn, block.mlp
        apply_linear(self.x, attention.c_attn, self.qkv, norm=block.ln_1)
        self.attend(attention, cache, positions)
        apply_linear(self.read, attention.c_proj, self.x, add=True)
        if block.mlp_conv is None:
            apply_linear(self.x, mlp.c_fc, self.hidden, norm=block.ln_2, kind=str(mlp.kind))
        else:
            mixed = self.mix_tokens(block.ln_2(self.x), block.mlp_conv, cache, positions)
            apply_linear(mixed, mlp.c_fc, self.hidden, kind=str(mlp.kind))
        apply_linear(self.hidden, mlp.c_proj, self.x, add=True)

    def read_block_by_torch(self, block: Block, cache: LayerKVCache, positions: Tensor) -> None:
        """Let `x` go through `block` with torch's products, the quickest for many rows."""
        self.qkv = block.attn.c_attn(block.ln_1(self.x))
        self.attend(block.attn, cache, positions)
        self.x += block.attn.c_proj(self.read)
        normed = block.ln_2(self.x)
        if block.mlp_conv is not None:
            normed = self.mix_tokens(normed, block.mlp_conv, cache, positions)
        self.x += block.mlp(normed)

    def mix_tokens(
        self, x: Tensor, weight: Tensor, cache: LayerKVCache, positions: Tensor
    ) -> Tensor:
        """Return what mlp_conv makes of `x` (B, C) and the tokens before it; keep it."""
        self.cache.read_one(positions)
        return cache.mix_tokens(x[:, None], weight)[:, 0]

    def head(self) -> Tensor:
        """Return the logits (B, V) of `x`."""
        norm, head = self.model.ln_f, self.head_weight
        cap = float(self.model.config.logit_softcap or 0)
        if self.is_narrow:
            logits = torch.empty(len(self.x), self.n_logits, device=head.device)
            multiply(self.x, head, None, logits, norm=norm, kind="cap" if cap else "", cap=cap)
            return logits
        x = norm(self.x)
        if x.is_cuda and x.dtype != torch.float32:
            logits = torch.mm(x, head.T, out_dtype=torch.float32)
        else:
            logits = F.linear(x, head).float()
        return cap_logits(logits[:, : self.n_logits], cap)

    def embed(self, tokens: Tensor, positions: Tensor) -> None:
        """Write the embeddings of `tokens` (B,) at `positions` (B,) to `x`."""
        rows, C = self.x.shape
        wpe = None if self.frequencies is not None else self.model.wpe.weight
        grid = (rows, triton.cdiv(C, PART))
        wte = self.model.wte.weight  # not EARLY: a step begins when the last one has ended
        kernels.embed[grid](tokens, positions, wte, wpe, self.x, C, COLUMNS=PART)

    def attend(self, attention: Attention, cache: LayerKVCache, positions: Tensor) -> None:
        """Write what the queries of `qkv` read of the cache to `read`; keep keys and values."""
        D, rows = attention.head_size, len(positions)
        slots, warps = next((READING[most] for most in READING if rows <= most), READING_MANY)
        kernels.attend[(rows, attention.n_head)](
            self.qkv, cache.k, cache.v, self.frequencies, positions, self.read, cache.k.shape[2],
            SCALE=1 / math.sqrt(D), EPS=QK_EPS, NORMED=attention.qk_norm,
            HEADS=attention.n_head, KV_HEADS=attention.n_kv_head, D=D, SLOTS=slots,
            COLUMNS=triton.next_power_of_2(D), num_warps=warps, **early(positions.device),
        )  # fmt: skip


@cache
def early(device: torch.device) -> dict[str, bool]:
    """Return how to launch a kernel so that it begins early where `device` and Triton can do that.

    The Hopper generation and later can, in CUDA graphs too.
    """
    can = device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0)
    can = can and hasattr(triton.language.extra.cuda, "gdc_wait")
    return {"EARLY": True, "launch_pdl": True} if can else {"EARLY": False}


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
    columns, tile = tile_of(rows, N, K)
    sharing = 1 if rows == 1 else 16 if rows <= 16 else ROWS  # tensor cores take 16 at least
    kernels.linear[(triton.cdiv(N, columns), triton.cdiv(rows, sharing))](
        x, weight, bias,
        None if norm is None else norm.weight, getattr(norm, "bias", None),
        out if add else None, out, rows, N, K=K,
        EPS=0.0 if norm is None else float(norm.eps or 0),
        CENTRED=isinstance(norm, nn.LayerNorm), KIND=kind, CAP=cap, PRECISION=PRECISION,
        ROWS=sharing, COLUMNS=columns, DEPTH=tile.depth,
        num_warps=tile.num_warps, num_stages=tile.num_stages, **early(x.device),
    )  # fmt: skip


def tile_of(rows: int, N: int, K: int) -> tuple[int, Tile]:
    """Return what a program takes of N outputs of K inputs: how many columns, and how."""
    width = max(16, triton.next_power_of_2(K))
    if rows == 1:  # all of some columns is on its way at once, where it fits
        depth = min(width, DEEPEST)
        columns = max(1, 2 * DEEPEST // depth)
        while columns > 1 and N // columns < PROGRAMS:
            columns //= 2
        return columns, Tile(depth, max(1, columns * depth // DEEPEST), 1)
    return 16 if N < 17 * 96 else 32, Tile(min(MANY_ROWS_DEPTH, width), 4, 4)


def draw_fused(
    logits: Tensor, uniforms: Tensor, controls: Controls, *,
    seen: Tensor | None = None, column: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return what `draw_tokens` does, in two kernels where all tokens may be drawn."""
    filters = (controls.top_k, controls.top_p, controls.min_p)
    if controls.temperature == 0 or any(filters):
        return draw_tokens(logits, uniforms, controls, seen=seen, column=column)
    if seen is not None:
        logits = penalise(logits, seen, controls.repetition_penalty)
    rows, V = logits.shape
    count = triton.cdiv(V, PART)
    highs = logits.new_empty(rows, count)
    sums = logits.new_empty(rows, count, dtype=torch.float64)
    tokens = torch.empty(rows, dtype=torch.long, device=logits.device)
    temperature = max(controls.temperature, COLDEST)
    kernels.sum_parts[(rows, count)](
        logits, logits.stride(0), highs, sums, temperature, V, PART=PART, **early(logits.device)
    )
    kernels.pick[(rows,)](
        logits, logits.stride(0), uniforms, uniforms.stride(0), column,
        highs, sums, tokens, temperature, V, count,
        PARTS=triton.next_power_of_2(count), PART=PART, **early(logits.device),
    )  # fmt: skip
    return tokens


def note_fused(tokens: Tensor, drawn: Drawn) -> None:
    """Do what `note_tokens` does, in one kernel."""
    rows, size = drawn.chunk.shape
    kernels.note[(1,)](
        tokens, drawn.tokens, drawn.positions, drawn.chunk, drawn.count, drawn.chunk_count,
        rows, size, ROWS=triton.next_power_of_2(rows), num_warps=1, **early(tokens.device),
    )  # fmt: skip
