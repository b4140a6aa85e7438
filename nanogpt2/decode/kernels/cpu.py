"""Decoding on a CPU with cpu.c: a step, a prompt or a whole chunk in one call, for any variant.

The weights are packed once into panels, which the products read from one end to the other.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.base.system.errors import CheckpointError
from nanogpt2.decode.draw import Controls, take_column
from nanogpt2.decode.kernels.cpu_library import (
    MLP_KINDS,
    BlockWeights,
    Cache,
    DrawControls,
    LinearWeights,
    ModelWeights,
    NormWeights,
    load,
)
from nanogpt2.decode.pages import Room
from nanogpt2.model.gpt import GPT, Block, rope_frequencies
from nanogpt2.model.operators import QK_EPS

# Weights times tokens from which all of torch's threads share the work: waking them costs more
# than it saves below, and beside other work they wait for one another.
SHARED_WORK = 50_000_000
WRONG = {1: "a token is not in the vocabulary", 2: "a position is past the block"}


class CompiledWeights:
    """A packed copy of a model's weights, for any number of decoders.

    Logits are made for the first `n_tokens` tokens, or all. With `int8` the layers' weights have
    8 bits, and so has what they are multiplied by. DeviceError where cpu.c does not compile,
    CheckpointError where a weight to be rounded is not finite.
    """

    def __init__(self, model: GPT, *, n_tokens: int | None, int8: bool = False) -> None:
        self.int8 = int8
        self.library, config = load(), model.config
        self.room = Room(self._most_bytes(model))
        self.tensors: list[Tensor] = []  # what the structures point to
        self.blocks = (BlockWeights * config.n_layer)(*map(self._pack_block, model.h))
        self.struct = self._pack_model(model, n_tokens)
        self.pointer = ctypes.addressof(self.struct)
        self.size = sum(factor.numel() for factor in model.factors())  # weights that a token meets

    def _most_bytes(self, model: GPT) -> int:
        """Return what all panels take at most; halves of a layer may be padded apart."""
        shapes = (tuple(p.shape) for p in model.parameters() if p.dim() == 2)
        more = 2 * self.library.padded_size(1)
        return sum(4 * self.library.panel_floats(ins, outs + more) for outs, ins in shapes)

    def _pack_model(self, model: GPT, n_tokens: int | None) -> ModelWeights:
        config, first = model.config, model.h[0]
        assert isinstance(first, Block)
        attention, rotary = first.attn, config.positions == "rotary"
        frequencies = rope_frequencies(attention.head_size, torch.device("cpu"))
        return ModelWeights(
            n_layer=config.n_layer,
            n_head=config.n_head,
            n_kv_head=attention.n_kv_head,
            head_size=attention.head_size,
            n_embd=config.n_embd,
            n_hidden=first.mlp.c_proj.in_features,
            block_size=config.block_size,
            vocab_size=config.vocab_size,
            centred=isinstance(model.ln_f, nn.LayerNorm),
            qk_norm=attention.qk_norm,
            mlp=MLP_KINDS.index(str(first.mlp.kind)),
            n_taps=config.mlp_conv or 0,
            eps=model.ln_f.eps,
            qk_eps=QK_EPS,
            softcap=config.logit_softcap or 0.0,
            tokens=self._keep(model.wte.weight.detach().clone()),
            positions=None if rotary else self._keep(model.wpe.weight.detach().clone()),
            frequencies=self._keep(frequencies) if rotary else None,
            blocks=ctypes.addressof(self.blocks),
            norm=self._pack_norm(model.ln_f),
            head=self._pack(model.head_weight[:n_tokens], None),
        )

    def _pack_block(self, block: nn.Module) -> BlockWeights:
        assert isinstance(block, Block)
        attention, mlp = block.attn, block.mlp
        mlp_in = [mlp.c_fc.weight, mlp.c_fc.bias]
        if mlp.kind == "swiglu":  # gates, and then values, each up to the end of a panel
            mlp_in = [None if part is None else self._pad_halves(part) for part in mlp_in]
        return BlockWeights(
            norm_1=self._pack_norm(block.ln_1),
            norm_2=self._pack_norm(block.ln_2),
            attention_in=self._pack(attention.c_attn.weight, attention.c_attn.bias),
            attention_out=self._pack(attention.c_proj.weight, attention.c_proj.bias),
            mlp_in=self._pack(*mlp_in),
            mlp_out=self._pack(mlp.c_proj.weight, mlp.c_proj.bias),
            taps=None
            if block.mlp_conv is None
            else self._keep(self._pad_rows(block.mlp_conv[:, 0])),
        )

    def _pack(self, weight: Tensor, bias: Tensor | None) -> LinearWeights:
        """Return the layer of `weight` (outputs, inputs) in panels."""
        outputs, inputs = weight.shape
        weight, bias = weight.detach().contiguous(), None if bias is None else bias.contiguous()
        given = weight.data_ptr(), None if bias is None else bias.data_ptr()
        sizes = inputs, outputs, torch.get_num_threads()
        if self.int8:
            if not weight.isfinite().all():  # what is rounded would not show it
                raise CheckpointError("a weight is not finite: training went wrong")
            packed = self.room.take(self.library.panel_bytes(inputs, outputs), torch.uint8)
            panels = torch.empty(2 * self.library.padded_size(outputs))
            self.library.pack_bytes(*given, panels.data_ptr(), packed.data_ptr(), *sizes)
            return LinearWeights(self._keep(panels), self._keep(packed), inputs, outputs)
        panels = self.room.take(self.library.panel_floats(inputs, outputs), torch.float32)
        self.library.pack(*given, panels.data_ptr(), *sizes)
        return LinearWeights(self._keep(panels), None, inputs, outputs)

    def _pack_norm(self, norm: Any) -> NormWeights:
        shift = getattr(norm, "bias", None)
        return NormWeights(
            self._keep(self._pad(norm.weight.detach())),
            None if shift is None else self._keep(self._pad(shift.detach())),
        )

    def _pad_halves(self, tensor: Tensor) -> Tensor:
        return torch.cat([self._pad(half) for half in tensor.detach().chunk(2)])

    def _pad_rows(self, tensor: Tensor) -> Tensor:
        return torch.stack([self._pad(row) for row in tensor.detach()])

    def _pad(self, tensor: Tensor) -> Tensor:
        """Return `tensor` (N, ...) with zeros up to the end of a panel."""
        missing = self.library.padded_size(len(tensor)) - len(tensor)
        return F.pad(tensor, [0, 0] * (tensor.dim() - 1) + [0, missing]).contiguous()

    def _keep(self, tensor: Tensor) -> int:
        self.tensors.append(tensor)
        return tensor.data_ptr()


class CompiledDecoder:
    """Decodes on the CPU; see `Decoder`."""

    def __init__(self, weights: CompiledWeights, *, rows: int) -> None:
        self.weights, self.library, model = weights, weights.library, weights.struct
        self.n_tokens: int = model.head.outputs
        self.width = self.library.padded_size(self.n_tokens)
        self.group_size: int = self.library.group_size()  # tokens of a row that attend together
        floats = self.library.cache_floats(weights.pointer)
        self.kv_cache = torch.zeros(model.n_layer, rows, floats)
        self.cache = Cache(self.kv_cache.data_ptr(), rows * floats)
        self.row_numbers, self.slots = torch.arange(rows), torch.arange(model.block_size)
        self.scratch = torch.empty(0)
        self.spare: Tensor | None = None  # keys and values of one layer, for windows not kept

    def encode(self, tokens: Tensor, row: int) -> Tensor:
        """Put `tokens` (T,) into `row`, from position 0; return the last's logits (V,)."""
        rows = self.row_numbers[row].expand(len(tokens)).contiguous()
        return self.read(tokens, rows, self.slots[: len(tokens)], last=1)[0]

    def read_on(self, tokens: Tensor, position: int) -> Tensor:
        """Put `tokens` (N,) into row 0, from `position` on; return the logits (N, V) after each."""
        rows, positions = torch.zeros_like(tokens), torch.arange(position, position + len(tokens))
        return self.read(tokens, rows, positions, last=len(tokens), each=True)

    def copy_row(self, source: int, rows: Sequence[int], length: int) -> None:
        """Make each of `rows` hold the first `length` tokens of the row `source`."""
        self.kv_cache[:, rows] = self.kv_cache[:, source, None].clone()

    def reach(self, length: int) -> int:
        """Return `length`: `step` reads what it needs."""
        return length

    def step(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Add one token to each row: `tokens` (B,) at `positions` (B,); return logits (B, V)."""
        rows = self.row_numbers
        return self.read(tokens, rows, positions, last=len(rows))

    def last_logits(self, idx: Tensor) -> Tensor:
        """Return the logits (B, V) after each row of `idx` (B, T), without the cache."""
        if self.spare is None:
            self.spare = torch.zeros(self.kv_cache.shape[2])
        cache, rows = Cache(self.spare.data_ptr(), 0), torch.zeros_like(idx[0])
        slots = self.slots[: idx.shape[1]]
        return torch.cat([self.read(tokens, rows, slots, last=1, cache=cache) for tokens in idx])

    def go_on(
        self, tokens: Tensor, positions: Tensor, uniforms: Tensor, controls: Controls,
        seen: Tensor | None, drawn: Tensor,
    ) -> None:  # fmt: skip
        """Step and draw until `drawn` (B, count) is full, all in place.

        `uniforms` (B, count) pick the tokens; `seen` (B, V) takes note of them.
        """
        rows, count = drawn.shape
        assert tokens.shape == positions.shape == self.row_numbers.shape == (rows,)
        assert tokens.dtype == positions.dtype == drawn.dtype == torch.long
        assert tokens.is_contiguous()
        assert positions.is_contiguous()
        assert drawn.stride(1) == uniforms.stride(1) == 1
        assert uniforms.shape == drawn.shape
        assert uniforms.dtype == torch.float64
        assert seen is None or (seen.shape == (rows, self.n_tokens) and seen.is_contiguous())
        threads = self._count_threads(rows)
        # a signal is heard between two calls
        at_once = min(count, max(1, SHARED_WORK // (rows * self.weights.size)))
        logits = torch.empty(rows, self.width)
        for first in range(0, count, at_once):
            self._check(
                self.library.go_on(
                    self.weights.pointer, ctypes.addressof(self.cache),
                    rows, min(at_once, count - first),
                    tokens.data_ptr(), self.row_numbers.data_ptr(), positions.data_ptr(),
                    uniforms[:, first:].data_ptr(), uniforms.stride(0),
                    ctypes.addressof(as_struct(controls)),
                    None if seen is None else seen.data_ptr(),
                    drawn[:, first:].data_ptr(), drawn.stride(0), logits.data_ptr(),
                    self._make_scratch(rows, threads), threads,
                )
            )  # fmt: skip

    def read(
        self, tokens: Tensor, rows: Tensor, positions: Tensor, *, last: int,
        cache: Cache | None = None, each: bool = False,
    ) -> Tensor:  # fmt: skip
        """Put `tokens` (N,) into `rows` (N,) at `positions` (N,), of any number of rows at once.

        Those of a row follow one another. Returns the logits (`last`, V) after the last of each
        row: the same bits as alone. A text read in parts, each but the last of a multiple of
        `group_size` tokens, has the bits of one read at once, unless the model mixes tokens
        before its MLP. With `each` the logits (N, V) are those after each token, with the bits
        that they have where `step` reads one after the other.
        """
        tokens, positions = tokens.contiguous(), positions.contiguous()
        assert tokens.shape == rows.shape == positions.shape
        assert tokens.dtype == positions.dtype == torch.long
        threads = self._count_threads(len(tokens))
        logits = torch.empty(last, self.width)
        self._check(
            self.library.read_tokens(
                self.weights.pointer, ctypes.addressof(cache or self.cache), len(tokens),
                tokens.data_ptr(), rows.data_ptr(), positions.data_ptr(), each,
                logits.data_ptr(), self._make_scratch(len(tokens), threads), threads,
            )
        )  # fmt: skip
        return logits[:, : self.n_tokens]

    def read_and_draw(
        self, tokens: Tensor, rows: Tensor, positions: Tensor, uniforms: Tensor,
        controls: "ctypes.Array[DrawControls]",
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Do what `read` does, and draw a token of each row by controls of its own: (B,)."""
        last, threads = len(controls), self._count_threads(len(tokens))
        assert uniforms.shape == (last,)
        assert uniforms.dtype == torch.float64
        logits, drawn = torch.empty(last, self.width), torch.empty(last, dtype=torch.long)
        self._check(
            self.library.read_and_draw(
                self.weights.pointer, ctypes.addressof(self.cache), len(tokens),
                tokens.data_ptr(), rows.data_ptr(), positions.data_ptr(), logits.data_ptr(), last,
                uniforms.data_ptr(), ctypes.addressof(controls), drawn.data_ptr(),
                self._make_scratch(len(tokens), threads), threads,
            )
        )  # fmt: skip
        return logits[:, : self.n_tokens], drawn

    def _count_threads(self, tokens: int) -> int:
        return torch.get_num_threads() if tokens * self.weights.size >= SHARED_WORK else 1

    def _make_scratch(self, tokens: int, threads: int) -> int:
        """Return the address of memory for reading so many tokens; it lasts until the next call."""
        needed = self.library.scratch_floats(self.weights.pointer, tokens, threads)
        if self.scratch.numel() < needed:
            self.scratch = torch.empty(needed)
        return self.scratch.data_ptr()

    def _check(self, wrong: int) -> None:
        if wrong:
            raise IndexError(WRONG[wrong])


def draw_compiled(
    logits: Tensor, uniforms: Tensor, controls: Controls, *,
    seen: Tensor | None = None, column: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Return what `draw_tokens` does."""
    rows, V = logits.shape
    uniforms = take_column(uniforms, column)
    assert uniforms.shape == (rows, 1)
    assert seen is None or (seen.shape == logits.shape and seen.is_contiguous())
    assert logits.stride(1) == 1
    assert logits.dtype == torch.float32
    assert uniforms.dtype == torch.float64
    library, tokens = load(), torch.empty(rows, dtype=torch.long)
    scratch = torch.empty(library.draw_floats(V, 1))
    library.draw_rows(
        logits.data_ptr(), logits.stride(0), rows, V, uniforms.data_ptr(), uniforms.stride(0),
        ctypes.addressof(as_struct(controls)), 0, None if seen is None else seen.data_ptr(),
        tokens.data_ptr(), scratch.data_ptr(), 1,
    )  # fmt: skip
    return tokens


@cache
def as_struct(controls: Controls) -> DrawControls:
    """Return `controls` as cpu.c has them."""
    return DrawControls(
        temperature=controls.temperature,
        top_p=1.0 if controls.top_p is None else controls.top_p,
        min_p=controls.min_p or 0.0,
        repetition_penalty=controls.repetition_penalty,
        top_k=min(controls.top_k or 0, 2**31 - 1),
    )
