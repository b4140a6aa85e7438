"""GPT-2's byte pair encoding: Radford et al. 2019, section 2.2, after Sennrich et al. 2016.

A text is cut into words with their leading space, a word into its bytes, and neighbours are merged
in the order in which training found their merges. In the vocabulary a printable character stands
for each byte, as GPT-2's own files have it.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from nanogpt2.tokens.bpe.arrays import TokenArray, token_dtype
from nanogpt2.tokens.bpe.encoder import Encoder

END_OF_TEXT = "<|endoftext|>"


def _byte_characters() -> str:
    """Return the printable character of each of the 256 bytes: itself, or one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return "".join(
        chr(byte if byte in printable else 0x100 + others.index(byte)) for byte in range(256)
    )


BYTE_CHARACTERS = _byte_characters()
BYTES = {character: byte for byte, character in enumerate(BYTE_CHARACTERS)}


class BytePairTokenizer:
    """Merged bytes of UTF-8, which fit any text, and special tokens, which no text is encoded to.

    `vocabulary` has the tokens in the order of their numbers, `merges` pairs such as "t h" in the
    order of their making, `special` those of the vocabulary that stand for themselves.

    >>> tokenizer = BytePairTokenizer([*BYTE_CHARACTERS, "th"], ["t h"])
    >>> tokenizer.encode("the").tolist()
    [256, 101]
    """

    name = "bpe"

    def __init__(
        self, vocabulary: Sequence[str], merges: Sequence[str], special: Sequence[str] = ()
    ) -> None:
        self.vocabulary, self.merges, self.special = [*vocabulary], [*merges], [*special]
        self._numbers = {token: number for number, token in enumerate(self.vocabulary)}
        _check(self._numbers, self.vocabulary, self.merges, self.special)

    def __reduce__(self) -> tuple[Any, ...]:  # to other processes without encoders
        return BytePairTokenizer, (self.vocabulary, self.merges, self.special)

    @property
    def size(self) -> int:
        """Number of tokens, the special ones too."""
        return len(self.vocabulary)

    @cached_property
    def _bytes(self) -> list[bytes]:
        """Bytes of each token."""
        special = set(self.special)
        return [
            token.encode() if token in special else bytes(map(BYTES.__getitem__, token))
            for token in self.vocabulary
        ]

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int64]:
        return np.array([len(content) for content in self._bytes])

    @cached_property
    def _ranked(self) -> list[str]:
        """The tokens that a text can have, in the order in which they are made."""
        return [*BYTE_CHARACTERS, *(merge.replace(" ", "", 1) for merge in self.merges)]

    @cached_property
    def _encoder(self) -> Encoder:
        contents = [bytes(map(BYTES.__getitem__, token)) for token in self._ranked]
        return Encoder(self._ranked, self.merges, contents)

    @cached_property
    def _by_rank(self) -> TokenArray:
        numbers = [self._numbers[token] for token in self._ranked]
        return cast(TokenArray, np.array(numbers, dtype=token_dtype(self.size)))

    def encode(self, text: str) -> TokenArray:
        """Return the tokens of `text`, none of them special.

        DataError where it holds half a surrogate pair; ExtraError where tiktoken is missing.
        """
        return self._by_rank[self._encoder.encode(text)]

    def decode(self, tokens: Sequence[int] | TokenArray) -> str:
        """Return the text of `tokens`; bytes that are not UTF-8 become U+FFFD.

        IndexError for a token that is not below `size`.
        """
        numbers = np.asarray(tokens, dtype=np.int64).tolist()
        return b"".join(map(self._bytes.__getitem__, numbers)).decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that `token` stands for; of a special one those of its name."""
        return self._bytes[token]

    def count_bytes(self, tokens: TokenArray) -> int:
        """Return how many bytes of UTF-8 `tokens` stand for."""
        return int(self._lengths[np.asarray(tokens, dtype=np.int64)].sum())

    def to_dict(self) -> dict[str, Any]:
        """Return the vocabulary, the merges and the special tokens as plain data."""
        return {
            "name": self.name,
            "vocabulary": self.vocabulary,
            "merges": self.merges,
            "special": self.special,
        }


def _check(
    numbers: dict[str, int], vocabulary: list[str], merges: list[str], special: list[str]
) -> None:
    """Raise ValueError where these are not a vocabulary, its merges and its special tokens."""
    if not all(isinstance(text, str) for text in (*vocabulary, *merges, *special)):
        raise ValueError("vocabulary, merges and special are not lists of texts")
    if len(numbers) < len(vocabulary):
        raise ValueError("vocabulary has a token twice")
    if len(set(merges)) < len(merges) or len(set(special)) < len(special):
        raise ValueError("merges or special has an entry twice")
    if missing := [token for token in (*BYTE_CHARACTERS, *special) if token not in numbers]:
        raise ValueError(f"vocabulary lacks {missing[0]!r}")
    ordinary = numbers.keys() - set(special)
    if any(byte not in ordinary for byte in BYTE_CHARACTERS):
        raise ValueError("special has the token of a byte")
    if wrong := [t for t in ordinary if not t or not BYTES.keys() >= set(t)]:
        raise ValueError(f"vocabulary has {min(wrong)!r}, which is not of bytes' characters")
    made = set()
    for merge in merges:
        first, _, second = merge.partition(" ")
        if not {first, second, first + second} <= ordinary or first + second in made:
            raise ValueError(f"merges has {merge!r}, which makes no token of two, or one again")
        made.add(first + second)
