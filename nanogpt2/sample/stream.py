"""Tokens to text as they come: whole characters only, up to a stop string."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field

from nanogpt2.tokens.tokenizer import Tokenizer


@dataclass
class TextStream:
    """Turns the tokens of one sample into text, whole characters only, up to a stop string."""

    tokenizer: Tokenizer
    stop: Sequence[str]
    stopped: bool = False
    held: str = ""  # text that may yet turn out to begin a stop string
    decoder: codecs.IncrementalDecoder = field(  # keeps the start of a character
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )

    def push(self, tokens: Sequence[int]) -> str:
        """Return what `tokens` add to the text that can be shown."""
        if self.stopped:
            return ""
        self.held += self.decoder.decode(b"".join(map(self.tokenizer.token_bytes, tokens)))
        found = [at for text in self.stop if (at := self.held.find(text)) >= 0]
        if found:
            self.stopped = True
            return self._release(min(found))
        return self._release(len(self.held) - self._stop_begun())

    def finish(self) -> str:
        """Return the text that was held back until the end was known."""
        if self.stopped:
            return ""
        self.held += self.decoder.decode(b"", final=True)
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
