"""Tokenizers: text to token numbers and back. To add one, write its class and name it below."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from nanogpt2.base.system.checksums import read_sealed
from nanogpt2.base.system.errors import CheckpointError, DataError
from nanogpt2.tokens import characters
from nanogpt2.tokens.bpe.arrays import TokenArray, as_utf8, token_dtype, unknown_character
from nanogpt2.tokens.bpe.bpe import BytePairTokenizer
from nanogpt2.tokens.bpe.gpt2 import gpt2_tokenizer
from nanogpt2.tokens.bpe.merges import train_from_texts

UNKNOWN = b"\xff"  # where a byte stands for the token of an ASCII character


class Tokenizer(Protocol):
    """What the pipeline asks of a tokenizer."""

    name: str

    @property
    def size(self) -> int:
        """Number of tokens; token numbers are 0 .. size - 1."""

    def encode(self, text: str) -> TokenArray:
        """Return the tokens of `text`; DataError where it holds what the tokenizer lacks."""

    def decode(self, tokens: Sequence[int] | TokenArray) -> str:
        """Return the text of `tokens`."""

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of UTF-8 that `token` stands for."""

    def count_bytes(self, tokens: TokenArray) -> int:
        """Return how many bytes of UTF-8 `tokens` stand for."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `load_tokenizer` makes this tokenizer again."""


class Trainable(Tokenizer, Protocol):
    """A tokenizer that needs nothing but a text."""

    @classmethod
    def train(cls, texts: str | Iterable[str]) -> Tokenizer:
        """Return the tokenizer of one text or several."""


class CharTokenizer:
    """One token for each character.

    >>> CharTokenizer("abc").encode("cab").tolist()
    [2, 0, 1]
    """

    name = "char"

    def __init__(self, characters: str) -> None:
        if not isinstance(characters, str) or len(set(characters)) < len(characters):
            raise ValueError("characters is not a text in which each stands once")
        self.characters = characters

    @classmethod
    def train(cls, texts: str | Iterable[str]) -> "CharTokenizer":
        """Return the tokenizer of the characters in one text or several, in code point order."""
        characters: set[str] = set()
        for text in [texts] if isinstance(texts, str) else texts:
            characters.update(text)
        return cls("".join(sorted(characters)))

    @property
    def size(self) -> int:
        """Number of characters."""
        return len(self.characters)

    @cached_property
    def _code_points(self) -> npt.NDArray[np.uint32]:
        return _code_points(self.characters)

    @cached_property
    def _tokens(self) -> npt.NDArray[np.int32]:
        """Token of each code point up to the highest known one, -1 where there is none."""
        table = np.full(int(self._code_points.max(initial=0)) + 2, -1, dtype=np.int32)
        table[self._code_points] = np.arange(self.size)
        return table

    @cached_property
    def _ascii(self) -> bytes | None:
        """Token of each byte as a byte, UNKNOWN where there is none; None where some need more."""
        known = self._tokens[:128]
        if known.max(initial=-1) >= UNKNOWN[0]:
            return None
        table = np.full(256, UNKNOWN[0], np.uint8)
        table[: len(known)] = known.astype(np.uint8)  # -1 becomes UNKNOWN
        return table.tobytes()

    def encode(self, text: str) -> TokenArray:
        """Return the tokens of `text`; DataError names the first unknown character."""
        if self.size <= 2**16:
            found = characters.encode(text, self._tokens)
            if found is not None:
                return found
        if text.isascii() and self._ascii is not None:
            return self._encode_ascii(text, self._ascii)
        points = np.minimum(_code_points(text), len(self._tokens) - 1)  # the last entry is -1
        tokens = self._tokens[points]
        unknown = np.flatnonzero(tokens < 0)
        if unknown.size:
            raise self._unknown(text, int(unknown[0]))
        return cast(TokenArray, tokens.astype(token_dtype(self.size)))

    def _encode_ascii(self, text: str, table: bytes) -> TokenArray:
        """Do it byte by byte, which is several times as fast."""
        tokens = text.encode("ascii").translate(table)
        if (unknown := tokens.find(UNKNOWN)) >= 0:
            raise self._unknown(text, unknown)
        return cast(TokenArray, np.frombuffer(tokens, np.uint8).astype(token_dtype(self.size)))

    def _unknown(self, text: str, at: int) -> DataError:
        return unknown_character(text, at, f"{self.size} characters")

    def decode(self, tokens: Sequence[int] | TokenArray) -> str:
        """Return the text of `tokens`; IndexError for one that is not below `size`."""
        points = self._code_points[np.asarray(tokens, dtype=np.int64)]
        return points.tobytes().decode("utf-32-le", "surrogatepass")

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of the character `token`."""
        return self.characters[token].encode("utf-8", "surrogatepass")

    def count_bytes(self, tokens: TokenArray) -> int:
        """Return how many bytes of UTF-8 `tokens` stand for."""
        points = self._code_points
        lengths = 1 + (points > 0x7F) + (points > 0x7FF) + (points > 0xFFFF)
        return int(lengths[tokens].sum())

    def to_dict(self) -> dict[str, Any]:
        """Return the characters as plain data."""
        return {"name": self.name, "characters": self.characters}


class ByteTokenizer:
    """The 256 byte values of UTF-8, which fit any text.

    >>> ByteTokenizer().encode("é").tolist()
    [195, 169]
    """

    name = "byte"
    size = 256

    @classmethod
    def train(cls, texts: str | Iterable[str]) -> "ByteTokenizer":
        """Return the tokenizer; there is nothing to learn from `texts`, which are not read."""
        return cls()

    def encode(self, text: str) -> TokenArray:
        """Return the bytes of `text`; DataError where it holds half a surrogate pair."""
        return np.frombuffer(as_utf8(text), dtype=np.uint8).astype(np.uint16)

    def decode(self, tokens: Sequence[int] | TokenArray) -> str:
        """Return the text of `tokens`; bytes that are not UTF-8 become U+FFFD."""
        return np.asarray(tokens).astype(np.uint8).tobytes().decode("utf-8", "replace")

    def token_bytes(self, token: int) -> bytes:
        """Return the byte `token`."""
        return bytes([token])

    def count_bytes(self, tokens: TokenArray) -> int:
        """Return the number of `tokens`."""
        return len(tokens)

    def to_dict(self) -> dict[str, Any]:
        """Return the name as plain data."""
        return {"name": self.name}


TOKENIZERS: dict[str, type[Trainable]] = {"char": CharTokenizer, "byte": ByteTokenizer}


def train_tokenizer(
    name: str, texts: str | Iterable[str], *, vocab_size: int, special: Sequence[str] = ()
) -> Tokenizer:
    """Return the tokenizer called `name`, made for one text or several: char, byte, bpe or gpt2.

    `bpe` makes as many as `vocab_size` tokens, among them `special`, such as `<|endoftext|>`; no
    word may run from one text into the next. `gpt2` is GPT-2's own, whatever the texts. The others
    have as many tokens as they need, and none that are special. DataError where `vocab_size` is too
    small for a bpe, ExtraError where what gpt2 needs is not installed.
    """
    if name == "gpt2":
        return gpt2_tokenizer()
    if name == "bpe":
        return train_from_texts([texts] if isinstance(texts, str) else texts, vocab_size, special)
    return TOKENIZERS[name].train(texts)


def load_tokenizer(data: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer that `to_dict` described; CheckpointError where it is none."""
    known: dict[str, Callable[..., Tokenizer]] = {**TOKENIZERS, "bpe": BytePairTokenizer}
    try:
        arguments = dict(data)
        return known[arguments.pop("name")](**arguments)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"not a tokenizer: {error}; known: {', '.join(known)}") from error


def read_tokenizer(path: str | Path) -> Tokenizer:
    """Return the tokenizer in a file, as `prepare` writes it or made by hand.

    DataError where it is damaged, CheckpointError where it is none.
    """
    return load_tokenizer(read_sealed(path, required=False))


def check_vocab_size(vocab_size: int, needed: int) -> None:
    """Raise DataError where a model with `vocab_size` rows lacks some of the `needed` tokens."""
    if vocab_size < needed:
        raise DataError(
            f"vocab_size: found {vocab_size}; allowed: at least {needed},"
            " a row for each token of this text"
        )


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
