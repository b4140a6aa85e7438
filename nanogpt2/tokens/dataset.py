"""Datasets: tokens as overlapping windows of block_size, and batches drawn from them.

A batch is a function of the seed and the step, not of what was drawn before, so that a resumed
run sees what an unbroken one would have seen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils import data

from nanogpt2.base import files
from nanogpt2.base.errors import DataError
from nanogpt2.tokens.normal import normalise
from nanogpt2.tokens.tokenizer import (
    CharTokenizer,
    TokenArray,
    Tokenizer,
    check_vocab_size,
    load_tokenizer,
    token_dtype,
)


class Dataset(Protocol):
    """A map-style dataset: `dataset[i]` is a pair (idx, targets) of (block_size,) int64 tensors."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...


class TokenDataset(data.Dataset[tuple[Tensor, Tensor]]):
    """Every window of `block_size` tokens, with the window one token later as its targets."""

    def __init__(self, tokens: TokenArray, block_size: int, *, name: str = "the text") -> None:
        if len(tokens) <= block_size:
            raise DataError(
                f"{name} has {len(tokens)} tokens, and block_size {block_size} needs"
                f" {block_size + 1}: use more text or a smaller block_size"
            )
        self.tokens = tokens
        self.block_size = block_size

    def __len__(self) -> int:
        return len(self.tokens) - self.block_size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        idx, targets = self.batch([index % len(self)])
        return idx[0], targets[0]

    def batch(self, starts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return (idx, targets), each (B, block_size) int64, of the windows at `starts`."""
        window = np.arange(self.block_size + 1)
        tokens = self.tokens[np.asarray(starts)[:, None] + window].astype(np.int64)
        batch = torch.from_numpy(tokens)
        return batch[:, :-1], batch[:, 1:]


class CharDataset(TokenDataset):
    """Windows over the characters of `text`, which is normalised as prompts will be.

    The vocabulary is that of `text` unless a `tokenizer` is given; the same text gives the same.
    """

    def __init__(self, text: str, block_size: int, tokenizer: Tokenizer | None = None) -> None:
        text = normalise(text)
        self.tokenizer = tokenizer or CharTokenizer.train(text)
        super().__init__(self.tokenizer.encode(text), block_size)

    def encoded_with(self, tokenizer: Tokenizer) -> "CharDataset":
        """Return the same text in the tokens of another tokenizer."""
        return CharDataset(self.tokenizer.decode(self.tokens), self.block_size, tokenizer)


def draw_windows(n_windows: int, count: int, *, seed: int, step: int, stream: int = 0) -> list[int]:
    """Return `count` windows drawn at random, a function of (seed, step, stream) alone.

    Training draws from stream 0 and evaluation from another, so that neither disturbs the other.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed + (stream << 32), step]))
    return [int(window) for window in generator.integers(n_windows, size=count)]


def get_batch(dataset: Dataset, windows: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return (idx, targets), each (B, block_size) int64, of `windows` of any map-style dataset."""
    if isinstance(dataset, TokenDataset):
        return dataset.batch(windows)
    pairs = [dataset[window] for window in windows]
    return torch.stack([idx for idx, _ in pairs]), torch.stack([targets for _, targets in pairs])


def check_tokens(dataset: Dataset, vocab_size: int) -> None:
    """Raise DataError where a token has no row in the model's embedding."""
    if isinstance(dataset, TokenDataset):
        check_vocab_size(vocab_size, int(dataset.tokens.max()) + 1)


def with_same_tokens(train_dataset: Dataset, val_dataset: Dataset) -> Dataset:
    """Return `val_dataset` in the tokens of `train_dataset`, where both know their tokenizer."""
    if (
        isinstance(train_dataset, CharDataset)
        and isinstance(val_dataset, CharDataset)
        and train_dataset.tokenizer.to_dict() != val_dataset.tokenizer.to_dict()
    ):
        return val_dataset.encoded_with(train_dataset.tokenizer)
    return val_dataset


# --- Prepared data, as `preparation` writes it ---


def load_prepared_tokenizer(folder: Path) -> Tokenizer:
    """Return the tokenizer of a prepared folder."""
    return load_tokenizer(files.read_json(folder / "tokenizer.json"))


def prepared_splits(folder: Path) -> list[str]:
    """Return the names of a prepared folder's splits: train, val and, where it has one, test."""
    return list(files.read_json(folder / "dataset.json")["splits"])


def text_of_split(folder: Path, split: str) -> str | None:
    """Return the SHA-256 of the text of a split; None where dataset.json does not tell it."""
    found: str | None = files.read_json(folder / "dataset.json").get("sha256", {}).get(split)
    return found


def load_tokens(folder: Path, split: str) -> TokenArray:
    """Return the tokens of one split, mapped from its file; DataError where it is missing."""
    path = folder / f"{split}.bin"
    size = files.read_json(folder / "dataset.json")["vocabulary"]
    try:
        return np.memmap(path, dtype=np.dtype(token_dtype(size)).newbyteorder("<"), mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}; run `dvc repro prepare`") from error


def load_split(folder: Path, split: str, block_size: int) -> TokenDataset:
    """Return one split of a prepared folder as a dataset."""
    return TokenDataset(load_tokens(folder, split), block_size, name=f"the {split} split")
