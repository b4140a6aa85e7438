"""Rows of a decoder that texts take and leave: the logits of each are the same in any company."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nanogpt2.decode.decoder import Decoder, MakeDecoder
from nanogpt2.decode.draw import Controls, place_uniforms
from nanogpt2.decode.ensemble.ensemble import Ensemble, Model
from nanogpt2.decode.kernels.choose import choose_draw
from nanogpt2.decode.kernels.cpu import (
    SHARED_WORK,
    CompiledDecoder,
    as_struct,
    draw_compiled,
)
from nanogpt2.decode.kernels.cpu_library import DrawControls
from nanogpt2.model.gpt import GPT

Draw = Callable[..., Tensor]
STEP_WORK = 200_000_000  # weights times tokens of prompts that a step reads, about
PART = (48, 384)  # tokens of them, at least and at most
MOST_LANES = 4  # side by side: Python has one lock, and more would wait for it


Piece: TypeAlias = tuple[int, Sequence[int], int]
"""A row, the tokens that it reads, and the position of the first of them."""


class Lanes(Protocol):
    """What a batch asks of a model; rows are numbered from 0."""

    rows: int
    part: int | None  # tokens of prompts that are read in one step; None: a prompt comes whole
    group: int  # a part that is not the last has a multiple of so many

    def pack(self, controls: Sequence[Controls]) -> Any:
        """Return the controls of some pieces in the form that `step` takes."""

    def step(
        self, pieces: Sequence[Piece], uniforms: Sequence[float], controls: Any
    ) -> tuple[Tensor, list[int]]:
        """Read `pieces` of different rows.

        Return the logits (pieces, V) after each, and a token for each, with controls of its own.
        """

    def draw(self, logits: Tensor, uniform: float, controls: Controls, seen: Tensor) -> int:
        """Return the token of one row (1, V), where the tokens `seen` (1, V) count as repeated."""


def open_lanes(model: Model, make_decoder: MakeDecoder, *, rows: int) -> list[Lanes]:
    """Return lanes for `rows` texts in all, which may be read side by side.

    Where cpu.c decodes, one call reads all of some lanes. A model of which a call uses one core
    has several, at most a core each; they share its weights.
    """
    draw = choose_draw(model.wte.weight)
    decoder = make_decoder(rows=1)
    if isinstance(model, Ensemble) or not (
        isinstance(decoder, CompiledDecoder) and draw is draw_compiled
    ):
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


def fit_rows(model: Model, rows: int, free: int) -> int:
    """Return how many of `rows` texts take at most half of `free` bytes of memory; at least one."""
    members = model.members if isinstance(model, Ensemble) else [model]
    return max(1, min(rows, free // 2 // sum(map(_row_bytes, members))))


def _row_bytes(model: GPT) -> int:
    """Return about how many bytes the keys and values of a text take."""
    config = model.config
    heads = config.n_kv_head or config.n_head
    floats = 2 * heads * (config.n_embd // config.n_head)  # of a token
    floats += config.n_embd if config.mlp_conv else 0
    return int(4 * floats * config.n_layer * config.block_size)


class CompiledLanes:
    """One call of cpu.c reads what all rows have to read; a sum there runs in order in each."""

    def __init__(self, decoder: Decoder, *, parts: bool) -> None:
        assert isinstance(decoder, CompiledDecoder)
        self.decoder, self.rows = decoder, len(decoder.row_numbers)
        self.group = decoder.group_size
        least, most = PART
        part = min(most, max(least, STEP_WORK // decoder.weights.size))
        self.part = part // self.group * self.group if parts else None

    def pack(self, controls: Sequence[Controls]) -> Any:
        """Return the controls of some pieces in the form that `step` takes."""
        return (DrawControls * len(controls))(*map(as_struct, controls))

    def step(
        self, pieces: Sequence[Piece], uniforms: Sequence[float], controls: Any
    ) -> tuple[Tensor, list[int]]:
        """Read `pieces`; return the logits (pieces, V) after each, and tokens drawn from them."""
        read = (
            [token for _, tokens, _ in pieces for token in tokens],
            [row for row, tokens, _ in pieces for _ in tokens],
            [at for _, tokens, first in pieces for at in range(first, first + len(tokens))],
        )
        tokens, rows, positions = torch.from_numpy(np.array(read))
        numbers = torch.from_numpy(np.array(uniforms))
        logits, drawn = self.decoder.read_and_draw(tokens, rows, positions, numbers, controls)
        return logits, drawn.tolist()

    def draw(self, logits: Tensor, uniform: float, controls: Controls, seen: Tensor) -> int:
        """Return the token of one row (1, V), where the tokens `seen` (1, V) count as repeated."""
        return int(draw_compiled(logits, as_uniforms(uniform), controls, seen=seen))


class SingleLanes:
    """A decoder of one row for each text: products of several rows would round otherwise."""

    def __init__(self, make_decoder: MakeDecoder, draw: Draw, model: Model, *, rows: int) -> None:
        self.make_decoder, self.draw_alike, self.rows = make_decoder, draw, rows
        self.device, self.block_size = model.wte.weight.device, model.config.block_size
        self.decoders: dict[int, Decoder] = {}
        self.part: int | None = None
        self.group = 1

    def pack(self, controls: Sequence[Controls]) -> Any:
        """Return the controls of some pieces in the form that `step` takes."""
        return controls

    def step(
        self, pieces: Sequence[Piece], uniforms: Sequence[float], controls: Any
    ) -> tuple[Tensor, list[int]]:
        """Read `pieces`; return the logits (pieces, V) after each, and tokens drawn from them."""
        logits = [self._read(piece)[None] for piece in pieces]
        tokens = map(self.draw, logits, uniforms, controls)
        return torch.cat(logits), list(tokens)

    def _read(self, piece: Piece) -> Tensor:
        row, read, position = piece
        if row not in self.decoders:
            self.decoders[row] = self.make_decoder(rows=1)
        decoder = self.decoders[row]
        tokens = torch.tensor(read, device=self.device)
        if position == 0:
            return decoder.encode(tokens, 0)
        decoder.reach(min(position + 1, self.block_size))
        return decoder.step(tokens, torch.tensor([position], device=self.device))[0]

    def draw(
        self, logits: Tensor, uniform: float, controls: Controls, seen: Tensor | None = None
    ) -> int:
        """Return the token of one row (1, V), where the tokens `seen` (1, V) count as repeated."""
        uniforms = place_uniforms(as_uniforms(uniform), self.device)
        seen = None if seen is None else seen.to(self.device)
        return int(self.draw_alike(logits, uniforms, controls, seen=seen))


def as_uniforms(uniform: float) -> Tensor:
    """Return a number as those of a row: (1, 1)."""
    return torch.tensor([[uniform]], dtype=torch.float64)
