"""Guesses of what follows in a text: what followed the same tokens the last time they stood there.

Prompt lookup decoding (Saxena 2023): a decoder that reads several tokens at once, for little more
than one takes, checks a guess; where it draws other tokens, these count, so the text is the same.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nanogpt2.decode.decoder import Decoder
from nanogpt2.decode.kernels.cpu import CompiledDecoder
from nanogpt2.sample.request import Request

LEAST_WEIGHTS = 2_000_000  # of smaller models, which lie in a near cache, each token costs alike
BETWEEN = 100_000_000  # weights times tokens between two guesses: to look for one takes no time
LEAST_BETWEEN = 4  # tokens
SIZES = (8, 4)  # tokens that must be the same, the more first
SHORT, LONG = 3, 15  # tokens of a guess: at first, and where all of it came true
WORTH = 2  # tokens that must come true, or else reading the guess cost more than it saved
PAUSE, LONGEST_PAUSE = 16, 256  # tokens without a guess after one that came to nothing


class Drafts:
    """The tokens of a text so far, by what stands before each; `decoder` has it in its row 0.

    Where there is no guess, `between` tokens are drawn before the next look.
    """

    def __init__(self, tokens: Sequence[int], decoder: CompiledDecoder) -> None:
        self.decoder = decoder
        self.between = max(BETWEEN // decoder.weights.size, LEAST_BETWEEN)
        self.tokens: list[int] = []
        self.places: list[dict[tuple[int, ...], int]] = [{} for _ in SIZES]
        self.last: list[int | None] = [None for _ in SIZES]  # where the last tokens stood before
        self.resume, self.pauses = [0 for _ in SIZES], [PAUSE for _ in SIZES]
        self.length, self.used = SHORT, 0
        self.add(tokens)

    def add(self, tokens: Sequence[int]) -> None:
        """Take note of `tokens`, which come next."""
        for token in tokens:
            self.tokens.append(token)
            end = len(self.tokens)
            for number, (size, places) in enumerate(zip(SIZES, self.places, strict=True)):
                if end >= size:
                    key = tuple(self.tokens[end - size :])
                    self.last[number] = places.get(key)
                    places[key] = end

    def guess(self, most: int) -> list[int]:
        """Return up to `most` tokens that may follow; none where there is no good guess."""
        now = len(self.tokens)
        for number, place in enumerate(self.last):
            if place is not None and now >= self.resume[number]:
                self.used = number
                period = now - place  # what comes after the last token is what came after `place`
                return [self.tokens[place + n % period] for n in range(min(self.length, most))]
        return []

    def read(self, tokens: Sequence[int], position: int) -> Tensor:
        """Return the logits (N, V) after each of `tokens`, the first of which is at `position`."""
        return self.decoder.read_on(torch.tensor(tokens), position)

    def learn(self, guess: Sequence[int], drawn: Sequence[int]) -> int:
        """Return how many tokens of the last guess were drawn; `drawn` are not added yet."""
        pairs = zip(guess, drawn, strict=False)
        right = next((n for n, (a, b) in enumerate(pairs) if a != b), len(guess))
        if right == len(guess):
            self.length = min(2 * self.length + 1, LONG)
        elif right < WORTH:
            self.length = SHORT
        if right >= min(WORTH, len(guess)):
            self.pauses[self.used] = PAUSE
        else:
            self.resume[self.used] = len(self.tokens) + self.pauses[self.used]
            self.pauses[self.used] = min(2 * self.pauses[self.used], LONGEST_PAUSE)
        return right


def make_drafts(decoder: Decoder, request: Request) -> Drafts | None:
    """Return what guesses for `request`; None where guesses cannot be checked, or save nothing.

    They are of one sample, whose draws do not depend on the tokens between.
    """
    alone = len(request.prompts) == 1 and request.controls.repetition_penalty == 1
    if not (alone and request.drafts and request.use_cache):
        return None
    if not isinstance(decoder, CompiledDecoder) or decoder.weights.size < LEAST_WEIGHTS:
        return None
    return Drafts(request.prompts[0], decoder)
