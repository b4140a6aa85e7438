"""Parts of a split: which of its tokens are evaluated, and its text chunk by chunk."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from nanogpt2.tokens.bpe.arrays import TokenArray
from nanogpt2.tokens.tokenizer import Tokenizer

WINDOWS = 16  # of block_size, in a part of a large split
CHUNK = 1 << 20  # tokens read at a time


class Part(NamedTuple):
    """Tokens start .. end - 1 of a split: all but the first are predicted."""

    start: int
    end: int


def choose_parts(n_tokens: int, block_size: int, max_tokens: int | None) -> list[Part]:
    """Return which parts of a split of `n_tokens` are evaluated: all of it as one, if it may be.

    Otherwise parts of 16 windows of `block_size` each, or fewer where that is too many, at equal
    distances from the first token of the split to its last, with at most `max_tokens` predictions
    in all. They depend on nothing else.
    """
    if max_tokens is None or n_tokens - 1 <= max_tokens:
        return [Part(0, n_tokens)]
    n_windows = min(WINDOWS, max(1, max_tokens // block_size))
    size = min(n_windows * block_size, max_tokens)
    count = max_tokens // size
    starts = np.linspace(0, n_tokens - 1 - size, count).astype(np.int64)
    return [Part(start, start + size + 1) for start in starts.tolist()]


def largest_token(tokens: TokenArray, parts: list[Part]) -> int:
    """Return the largest token in `parts`, a chunk in memory at a time."""
    return max(int(chunk.max()) for part in parts for chunk in _chunks(tokens, part))


def count_bytes(tokens: TokenArray, parts: list[Part], tokenizer: Tokenizer) -> int:
    """Return how many bytes of UTF-8 the predicted tokens of `parts` stand for."""
    return sum(
        tokenizer.count_bytes(chunk)
        for start, end in parts
        for chunk in _chunks(tokens, Part(start + 1, end))
    )


def _chunks(tokens: TokenArray, part: Part) -> Iterator[TokenArray]:
    for start in range(part.start, part.end, CHUNK):
        yield tokens[start : min(start + CHUNK, part.end)]


def texts_of(tokens: TokenArray, tokenizer: Tokenizer) -> Iterator[str]:
    """Yield the text of `tokens` piece by piece; no piece ends within a character."""
    start = 0
    while start < len(tokens):
        end = min(start + CHUNK, len(tokens))
        while start < end < len(tokens) and _goes_on(tokenizer, int(tokens[end])):
            end -= 1
        end = end if end > start else min(start + CHUNK, len(tokens))  # no text has such tokens
        yield tokenizer.decode(tokens[start:end])
        start = end


def _goes_on(tokenizer: Tokenizer, token: int) -> bool:
    """Return whether a token begins with a byte that goes on with a character of UTF-8."""
    return b"\x80" <= tokenizer.token_bytes(token)[:1] < b"\xc0"
