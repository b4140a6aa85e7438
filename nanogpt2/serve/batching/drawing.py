"""One text being drawn: what is to be read next, what has been drawn, and its random stream."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from nanogpt2.decode.draw import Controls, draw_uniforms


class Likely(NamedTuple):
    """How likely a token was, and the likeliest there: natural logarithms of probabilities."""

    logprob: float
    others: Sequence[tuple[int, float]]  # the likeliest first


@dataclass(frozen=True)
class Window:
    """How a model reads past its block; see `sample.generate`."""

    block_size: int
    slides: bool  # on and on, since its positions are rotary


@dataclass(eq=False)
class Drawing:
    """A text that goes on from `prompt` as `generate` goes on from it with the same seed."""

    prompt: Sequence[int]
    seed: int
    max_tokens: int
    controls: Controls
    window: str = "exact"
    logprobs: int | None = None  # alternatives to tell at each token; None tells nothing
    drawn: list[int] = field(default_factory=list)
    likely: list[Likely] = field(default_factory=list)  # of each of `drawn`, where that is told
    unread: list[int] = field(default_factory=list)
    position: int = 0  # of the first unread token
    uniforms: list[float] = field(init=False)
    seen: Tensor | None = None  # (1, V), where repeated tokens are made less likely

    def __post_init__(self) -> None:
        self.uniforms = draw_uniforms([self.seed], max(1, self.max_tokens))[0].tolist()

    def begin(self, window: Window, n_tokens: int) -> None:
        """Say that the prompt's last tokens, as many as a window has, are to be read."""
        self.unread, self.position = list(self.prompt[-window.block_size :]), 0
        if self.controls.repetition_penalty != 1:
            self.seen = torch.zeros(1, n_tokens, dtype=torch.bool)
            self.seen[0, list(self.prompt)] = True

    def read(self, count: int) -> None:
        """Take note that `count` tokens have been read, of more."""
        self.unread = self.unread[count:]
        self.position += count

    def take(self, token: int, window: Window) -> None:
        """Add a token now that all have been read; it is next, or a whole window that is full."""
        self.drawn.append(token)
        self.position += len(self.unread)
        if self.seen is not None:
            self.seen[0, token] = True
        if self.position < window.block_size or window.slides:
            self.unread = [token]
            return
        size = window.block_size if self.window == "exact" else max(1, window.block_size // 2)
        self.unread, self.position = self._last(size), 0

    def _last(self, size: int) -> list[int]:
        before = size - len(self.drawn)
        return [*(self.prompt[-before:] if before > 0 else ()), *self.drawn[-size:]]
