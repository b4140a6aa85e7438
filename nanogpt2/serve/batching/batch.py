"""Continuous batching: texts join and leave between tokens, and each is what it is alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nanogpt2.serve.batching.drawing import Drawing, Likely, Window
from nanogpt2.serve.batching.lanes import Lanes, Piece


@dataclass(frozen=True)
class Company:
    """Texts of which a step reads something: often the same, step after step."""

    drawings: Sequence[Drawing]
    controls: Any  # as the lanes have them
    is_plain: bool  # none is told how likely its tokens are, or has repeated ones less likely


class Batch:
    """The texts under way in the rows of `lanes`."""

    def __init__(self, lanes: Lanes, window: Window, *, n_tokens: int) -> None:
        self.lanes, self.window, self.n_tokens = lanes, window, n_tokens
        self.free = list(range(lanes.rows))[::-1]
        self.rows: dict[Drawing, int] = {}
        self.company = self._introduce([])

    def join(self, drawing: Drawing) -> None:
        """Give `drawing` a row, of which one must be free."""
        self.rows[drawing] = self.free.pop()
        drawing.begin(self.window, self.n_tokens)

    def leave(self, drawing: Drawing) -> None:
        """Free the row of `drawing`."""
        self.free.append(self.rows.pop(drawing))

    @torch.inference_mode()
    def step(self) -> list[Drawing]:
        """Draw the next token of each text, but of those with more of their prompt to read.

        Return the texts that gained one. A text leaves with its last token.
        """
        reading, pieces, ready = self._choose_pieces()
        if reading != self.company.drawings:
            self.company = self._introduce(reading)
        uniforms = [drawing.uniforms[len(drawing.drawn)] for drawing in reading]
        logits, tokens = self.lanes.step(pieces, uniforms, self.company.controls)
        if len(ready) < len(pieces):
            for at in set(range(len(pieces))).difference(ready):
                reading[at].read(len(pieces[at][1]))
            logits, tokens = logits[ready], [tokens[at] for at in ready]
            reading = [reading[at] for at in ready]
        if not self.company.is_plain:
            self._draw_again(logits, reading, tokens)
            self._tell(logits, reading, tokens)
        for drawing, token in zip(reading, tokens, strict=True):
            drawing.take(token, self.window)
            if len(drawing.drawn) == drawing.max_tokens:
                self.leave(drawing)
        return reading

    def _introduce(self, drawings: Sequence[Drawing]) -> Company:
        controls = self.lanes.pack([drawing.controls for drawing in drawings])
        plain = all(each.logprobs is None and each.seen is None for each in drawings)
        return Company(drawings, controls, plain)

    def _choose_pieces(self) -> tuple[list[Drawing], list[Piece], list[int]]:
        """Return which texts read what now, and the numbers of those that then draw a token."""
        reading: list[Drawing] = []
        pieces: list[Piece] = []
        ready: list[int] = []
        room = self.lanes.part
        for drawing, row in self.rows.items():
            unread: Sequence[int] = drawing.unread
            if len(unread) > 1 and room is not None:
                unread = self._begin_of(unread, room)
                room -= len(unread)
            if unread is drawing.unread:
                ready.append(len(pieces))
            if unread:
                reading.append(drawing)
                pieces.append((row, unread, drawing.position))
        return reading, pieces, ready

    def _begin_of(self, unread: Sequence[int], room: int) -> Sequence[int]:
        """Return as much of `unread` as is read where there is room for so many tokens."""
        if len(unread) <= room:
            return unread
        return unread[: room // self.lanes.group * self.lanes.group]

    def _draw_again(self, logits: Tensor, drawings: Sequence[Drawing], tokens: list[int]) -> None:
        """Draw anew where repeated tokens are to be less likely; those are few."""
        for at, drawing in enumerate(drawings):
            if drawing.seen is not None:
                uniform = drawing.uniforms[len(drawing.drawn)]
                row = logits[at : at + 1]
                tokens[at] = self.lanes.draw(row, uniform, drawing.controls, drawing.seen)

    def _tell(self, logits: Tensor, drawings: Sequence[Drawing], tokens: Sequence[int]) -> None:
        told = tell_likely(logits, tokens, [each.logprobs for each in drawings])
        for drawing, likely in zip(drawings, told, strict=True):
            if likely is not None:
                drawing.likely.append(likely)


def tell_likely(
    logits: Tensor, tokens: Sequence[int], counts: Sequence[int | None]
) -> list[Likely | None]:
    """Return how likely each of `tokens` was by its row of `logits`; None for no count."""
    asked = [at for at, count in enumerate(counts) if count is not None]
    told: list[Likely | None] = [None] * len(counts)
    if not asked:
        return told
    logprobs = logits[asked].double().log_softmax(dim=-1)
    most = min(max(count or 0 for count in counts), logprobs.shape[-1])
    values, numbers = logprobs.topk(most, dim=-1)
    drawn = logprobs.gather(1, torch.tensor(tokens, device=logits.device)[asked, None])[:, 0]
    rows = zip(asked, drawn.tolist(), numbers.tolist(), values.tolist(), strict=True)
    for at, logprob, others, of_others in rows:
        count = counts[at] or 0
        pairs = zip(others[:count], of_others[:count], strict=True)
        told[at] = Likely(logprob, tuple(pairs))
    return told
