"""Rows of a decoder that texts take and leave: the logits of each are the same in any company."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from nanogpt2.decode.decoder import Decoder, MakeDecoder
from nanogpt2.decode.draw import Controls
from nanogpt2.decode_kernels.choose import choose_draw
from nanogpt2.decode_kernels.cpu import (
    SHARED_WORK,
    CompiledDecoder,
    as_struct,
    draw_compiled,
    draw_each,
)
from nanogpt2.model.gpt import GPT

Draw = Callable[..., Tensor]
STEP_WORK = 200_000_000  # weights times tokens of prompts that a step reads, about
PART = (48, 384)  # tokens of them, at least and at most
MOST_LANES = 4  # side by side: Python has one lock, and more would wait for it


class Piece(NamedTuple):
    """Tokens that a row reads, the first of them at `position`."""

    row: int
    tokens: Sequence[int]
    position: int


class Lanes(Protocol):
    """What a batch asks of a model; rows are numbered from 0."""

    rows: int
    part: int | None  # tokens of prompts that are read in one step; None: a prompt comes whole
    group: int  # a part that is not the last has a multiple of so many

    def read(self, pieces: Sequence[Piece]) -> Tensor:
        """Read `pieces` of different rows; return the logits (pieces, V) after each."""

    def pack(self, controls: Controls) -> Any:
        """Return `controls` in the form that `draw` takes."""

    def draw(self, logits: Tensor, uniforms: Tensor, controls: Sequence[Any]) -> Tensor:
        """Return a token for each row of `logits`, with controls of its own."""

    def draw_one(self, logits: Tensor, uniforms: Tensor, controls: Any, seen: Tensor) -> Tensor:
        """Return the token of one row, in which the tokens `seen` (1, V) count as repeated."""


def open_lanes(model: GPT, make_decoder: MakeDecoder, *, rows: int) -> list[Lanes]:
    """Return lanes for `rows` texts in all, which may be read side by side.

    Where cpu.c decodes, one call reads all of some lanes. A model of which a call uses one core
    has several, at most a core each; they share its weights.
    """
    draw = choose_draw(model.wte.weight)
    decoder = make_decoder(rows=1)
    if not (isinstance(decoder, CompiledDecoder) and draw is draw_compiled):
        return [SingleLanes(make_decoder, draw, model, rows=rows)]
    is_small = rows * decoder.weights.size < SHARED_WORK
    count = min(rows, MOST_LANES, torch.get_num_threads()) if is_small else 1
    return [
        CompiledLanes(
            make_decoder(rows=rows // count + (number < rows % count)),
            parts=not model.config.mlp_conv,
        )
        for number in range(count)
    ]


def fit_rows(model: GPT, rows: int, free: int) -> int:
    """Return how many of `rows` texts take at most half of `free` bytes of memory; at least one."""
    config = model.config
    floats = (
        2 * (config.n_kv_head or config.n_head) * (config.n_embd // config.n_head)
    )  # of a token
    floats += config.n_embd if config.mlp_conv else 0
    return max(1, min(rows, free // 2 // (4 * floats * config.n_layer * config.block_size)))


class CompiledLanes:
    """One call of cpu.c reads what all rows have to read; a sum there runs in order in each."""

    def __init__(self, decoder: Decoder, *, parts: bool) -> None:
        assert isinstance(decoder, CompiledDecoder)
        self.decoder, self.rows = decoder, len(decoder.row_numbers)
        self.group = decoder.group_size
        least, most = PART
        part = min(most, max(least, STEP_WORK // decoder.weights.size))
        self.part = part // self.group * self.group if parts else None

    def read(self, pieces: Sequence[Piece]) -> Tensor:
        """Read `pieces` of different rows; return the logits (pieces, V) after each."""
        read = [
            (token, row, position)
            for row, tokens, first in pieces
            for position, token in enumerate(tokens, start=first)
        ]
        tokens, rows, positions = torch.from_numpy(np.array(read).T.copy())
        return self.decoder.read(tokens, rows, positions, last=len(pieces))

    def pack(self, controls: Controls) -> Any:
        """Return `controls` in the form that `draw` takes."""
        return as_struct(controls)

    def draw(self, logits: Tensor, uniforms: Tensor, controls: Sequence[Any]) -> Tensor:
        """Return a token for each row of `logits`, with controls of its own."""
        return draw_each(logits, uniforms, controls)

    def draw_one(self, logits: Tensor, uniforms: Tensor, controls: Any, seen: Tensor) -> Tensor:
        """Return the token of one row, in which the tokens `seen` (1, V) count as repeated."""
        return draw_each(logits, uniforms, [controls], seen=seen)


class SingleLanes:
    """A decoder of one row for each text: products of several rows would round otherwise."""

    def __init__(self, make_decoder: MakeDecoder, draw: Draw, model: GPT, *, rows: int) -> None:
        self.make_decoder, self.draw_alike, self.rows = make_decoder, draw, rows
        self.device, self.block_size = model.wte.weight.device, model.config.block_size
        self.decoders: dict[int, Decoder] = {}
        self.part: int | None = None
        self.group = 1

    def read(self, pieces: Sequence[Piece]) -> Tensor:
        """Read `pieces` of different rows; return the logits (pieces, V) after each."""
        return torch.stack([self._read(piece) for piece in pieces])

    def _read(self, piece: Piece) -> Tensor:
        if piece.row not in self.decoders:
            self.decoders[piece.row] = self.make_decoder(rows=1)
        decoder = self.decoders[piece.row]
        tokens = torch.tensor(piece.tokens, device=self.device)
        if piece.position == 0:
            return decoder.encode(tokens, 0)
        decoder.reach(min(piece.position + 1, self.block_size))
        return decoder.step(tokens, torch.tensor([piece.position], device=self.device))[0]

    def pack(self, controls: Controls) -> Any:
        """Return `controls` in the form that `draw` takes."""
        return controls

    def draw(self, logits: Tensor, uniforms: Tensor, controls: Sequence[Any]) -> Tensor:
        """Return a token for each row of `logits`, with controls of its own."""
        rows = zip(logits[:, None], uniforms[:, None], controls, strict=True)
        return torch.cat([self._draw(*row, None) for row in rows])

    def draw_one(self, logits: Tensor, uniforms: Tensor, controls: Any, seen: Tensor) -> Tensor:
        """Return the token of one row, in which the tokens `seen` (1, V) count as repeated."""
        return self._draw(logits, uniforms, controls, seen.to(self.device))

    def _draw(
        self, logits: Tensor, uniforms: Tensor, controls: Controls, seen: Tensor | None
    ) -> Tensor:
        uniforms = uniforms.to(torch.float32 if self.device.type == "mps" else torch.float64)
        return self.draw_alike(logits, uniforms.to(self.device), controls, seen=seen)
