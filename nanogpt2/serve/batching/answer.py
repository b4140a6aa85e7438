"""An answer as it grows: tokens become text, up to a stop text, in pieces that are sent."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from nanogpt2.sample.stream import TextStream
from nanogpt2.serve.batching.drawing import Drawing, Likely


class Told(NamedTuple):
    """A token, and where in the text it begins, in characters."""

    token: int
    offset: int
    likely: Likely | None  # None: nothing precedes it


@dataclass(eq=False)
class Answer:
    """One answer to a prompt, in which each token is told if it `tells`."""

    index: int
    drawing: Drawing
    stream: TextStream
    tells: bool
    finish: str | None = None  # once it is over: stop or length
    count: int = 0  # tokens so far
    unsent: str = ""
    length: int = 0  # characters so far, of an echoed prompt too
    waiting: list[int] = field(default_factory=list)  # tokens that are not yet text
    told: list[Told] = field(default_factory=list)

    def echo(self, text: str, told: Sequence[Told]) -> None:
        """Begin with the prompt."""
        self._add(text)
        self.told += told

    def take(self, count: int) -> None:
        """Add what its drawing has gained, up to `count` tokens in all, or to a stop text."""
        if self.tells or self.stream.stop:
            while self.count < count and not self.stream.stopped:
                self._take_one()
        else:
            self.waiting += self.drawing.drawn[self.count : count]
            self.count = count
        if self.stream.stopped:
            self.finish = "stop"
        elif self.count == self.drawing.max_tokens:
            self.finish = "length"

    def _take_one(self) -> None:
        token = self.drawing.drawn[self.count]
        if self.tells:
            likely = self.drawing.likely[self.count] if self.drawing.likely else None
            self.told.append(Told(token, self.length + len(self.stream.held), likely))
        self.count += 1
        self.waiting.append(token)
        self._write()

    def collect(self) -> tuple[str, list[Told]]:
        """Return what is new: text, and the tokens that begin in it."""
        self._write()
        if self.finish:
            self._add(self.stream.finish())
        text, self.unsent = self.unsent, ""
        whole = self.finish == "length"
        begun = [told for told in self.told if whole or told.offset < self.length]
        self.told = self.told[len(begun) :]
        return text, begun

    def _write(self) -> None:
        self._add(self.stream.push(self.waiting))
        self.waiting.clear()

    def _add(self, text: str) -> None:
        self.unsent += text
        self.length += len(text)
