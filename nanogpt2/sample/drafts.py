"""Guesses of what follows in a text: what followed the same tokens the last time they stood there.

Prompt lookup decoding (Saxena 2023): a decoder that reads several tokens at once, for little more
than one takes, checks a guess; where it draws other tokens, these count, so the text is the same.
"""

from collections.abc import Sequence

SIZES = (8, 4)  # tokens that must be the same, the more first
SHORT, LONG = 3, 15  # tokens of a guess: at first, and where all of it came true
WORTH = 2  # tokens that must come true, or else reading the guess cost more than it saved
PAUSE, LONGEST_PAUSE = 16, 256  # tokens without a guess after one that came to nothing


class Drafts:
    """The tokens of a text so far, by what stands before each."""

    def __init__(self, tokens: Sequence[int]) -> None:
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

    def learn(self, guessed: int, came_true: int) -> None:
        """Take note of how many tokens of the last guess came true; they are added after it."""
        if came_true == guessed:
            self.length = min(2 * self.length + 1, LONG)
        elif came_true < WORTH:
            self.length = SHORT
        number = self.used
        if came_true >= min(WORTH, guessed):
            self.pauses[number] = PAUSE
        else:
            self.resume[number] = len(self.tokens) + self.pauses[number]
            self.pauses[number] = min(2 * self.pauses[number], LONGEST_PAUSE)
