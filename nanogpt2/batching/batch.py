"""Continuous batching: texts join and leave between tokens, and each is what it is alone."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nanogpt2.batching.drawing import Drawing, Window
from nanogpt2.batching.lanes import Lanes, Piece


class Likely(NamedTuple):
    """How likely a token was, and the likeliest there: natural logarithms of probabilities."""

    logprob: float
    others: Sequence[tuple[int, float]]  # the likeliest first


class Drawn(NamedTuple):
    """A token that was drawn."""

    drawing: Drawing
    token: int
    likely: Likely | None


class Batch:
    """The texts under way in the rows of `lanes`."""

    def __init__(self, lanes: Lanes, window: Window, *, n_tokens: int) -> None:
        self.lanes, self.window, self.n_tokens = lanes, window, n_tokens
        self.free = list(range(lanes.rows))[::-1]
        self.rows: dict[Drawing, int] = {}
        self.controls: dict[Drawing, Any] = {}  # as the lanes have them

    def join(self, drawing: Drawing) -> None:
        """Give `drawing` a row, of which one must be free."""
        self.rows[drawing] = self.free.pop()
        self.controls[drawing] = self.lanes.pack(drawing.controls)
        drawing.begin(self.window, self.n_tokens)

    def leave(self, drawing: Drawing) -> None:
        """Free the row of `drawing`."""
        self.free.append(self.rows.pop(drawing))
        del self.controls[drawing]

    @torch.inference_mode()
    def step(self) -> list[Drawn]:
        """Draw the next token of each text, but of those with more of their prompt to read.

        A text leaves with its last token.
        """
        pieces, ready = self._choose_pieces()
        uniforms = [drawing.uniforms[len(drawing.drawn)] for drawing, _ in pieces]
        controls = [self.controls[drawing] for drawing, _ in pieces]
        logits, every = self.lanes.step([piece for _, piece in pieces], uniforms, controls)
        for drawing, piece in pieces:
            drawing.read(len(piece.tokens))
        drawings = [pieces[at][0] for at in ready]
        tokens = [every[at] for at in ready]
        if len(ready) < len(pieces):
            logits = logits[ready]
        self._draw_again(logits, drawings, tokens)
        likely = tell_likely(logits, tokens, [each.logprobs for each in drawings])
        for drawing, token in zip(drawings, tokens, strict=True):
            drawing.take(token, self.window)
            if len(drawing.drawn) == drawing.max_tokens:
                self.leave(drawing)
        return list(map(Drawn, drawings, tokens, likely))

    def _choose_pieces(self) -> tuple[list[tuple[Drawing, Piece]], list[int]]:
        """Return what is read now, and the numbers of the pieces after which a token is drawn."""
        pieces: list[tuple[Drawing, Piece]] = []
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
                pieces.append((drawing, Piece(row, unread, drawing.position)))
        return pieces, ready

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
