"""Tokens to text as they come: whole characters only, up to a stop string."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from nanogpt2.tokens.tokenizer import Tokenizer

REPLACEMENT = "\ufffd"  # what decoding makes of bytes that are no UTF-8, or not yet


@dataclass
class TextStream:
    """Turns the tokens of one sample into text, whole characters only, up to a stop string."""

    tokenizer: Tokenizer
    stop: Sequence[str]
    stopped: bool = False
    held: str = ""  # text that may yet turn out to begin a stop string
    pending: list[int] = field(default_factory=list)  # tokens that may end inside a character

    def push(self, tokens: Sequence[int]) -> str:
        """Return what `tokens` add to the text that can be shown."""
        if self.stopped:
            return ""
        self.pending += tokens
        self.held += self._whole_characters()
        found = [at for text in self.stop if (at := self.held.find(text)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self.held) - self._stop_begun())

    def finish(self) -> str:
        """Return the text that was held back until the end was known."""
        if self.stopped:
            return ""
        self.held += self.tokenizer.decode(self.pending)
        found = [at for text in self.stop if (at := self.held.find(text)) >= 0]
        return self._release(min(found, default=len(self.held)))

    def _release(self, length: int) -> str:
        text, self.held = self.held[:length], self.held[length:]
        return text

    def _stop_begun(self) -> int:
        """Return how many characters at the end of `held` could begin a stop string."""
        sizes = range(max(map(len, self.stop), default=1) - 1, 0, -1)
        return next(
            (n for n in sizes if any(text.startswith(self.held[-n:]) for text in self.stop)), 0
        )

    def _whole_characters(self) -> str:
        """Return the text of the pending tokens, less what may be the start of a character."""
        text = self.tokenizer.decode(self.pending)
        if not text.endswith(REPLACEMENT):
            self.pending = []
            return text
        for kept in range(min(3, len(self.pending)), 0, -1):  # UTF-8 has at most 4 bytes
            head = self.tokenizer.decode(self.pending[:-kept])
            tail = self.tokenizer.decode(self.pending[-kept:])
            if head + tail == text:
                self.pending = self.pending[-kept:]
                return head
        return ""
