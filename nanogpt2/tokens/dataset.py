"""Datasets: tokens as overlapping windows of block_size, and batches drawn from them.

A batch is a function of the seed and the step, not of what was drawn before, so that a resumed
run sees what an unbroken one would have seen.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils import data

from nanogpt2.base.system import arguments, files
from nanogpt2.base.system.arguments import whole_number
from nanogpt2.base.system.checksums import DAMAGED, FILES, hash_file, read_sealed
from nanogpt2.base.system.errors import DataError
from nanogpt2.tokens.bpe.arrays import TokenArray, token_dtype
from nanogpt2.tokens.documents import Layout, lay_out
from nanogpt2.tokens.epochs import draw_each_once
from nanogpt2.tokens.normal import normalise
from nanogpt2.tokens.tokenizer import (
    CharTokenizer,
    Tokenizer,
    check_vocab_size,
    read_tokenizer,
)

AGAIN = "remove the folder and run `dvc repro prepare`"
PAIR = "allowed: (idx, targets), two tensors (T,) of integers"

Windows: TypeAlias = npt.NDArray[np.int64]  # numbers of a dataset's items (B,)


class Dataset(Protocol):
    """A map-style dataset: `dataset[i]` is a pair (idx, targets) of (block_size,) int64 tensors."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]: ...


class TokenDataset(data.Dataset[tuple[Tensor, Tensor]]):
    """Every window of `block_size` tokens, with the window one token later as its targets.

    `tokens` is an array, tensor or list of integers (N,). DataError where it is not, or too short.
    `separator` are the tokens that stand between documents, where it has some.
    """

    def __init__(
        self,
        tokens: npt.NDArray[Any] | Tensor | Sequence[int],
        block_size: int,
        *,
        name: str = "the text",
        separator: Sequence[int] = (),
    ) -> None:
        block_size = whole_number("block_size", block_size, least=1)
        tokens = as_token_array(tokens, name=name)
        if len(tokens) <= block_size:
            raise DataError(
                f"{name} has {len(tokens)} tokens, and block_size {block_size} needs"
                f" {block_size + 1}: use more text or a smaller block_size"
            )
        self.tokens = tokens
        self.block_size = block_size
        self.separator = list(separator)
        self._hashed: tuple[TokenArray, str] | None = None

    def sha256(self) -> str:
        """Return the SHA-256 of the bytes of the tokens, taken once."""
        if self._hashed is None or self._hashed[0] is not self.tokens:
            self._hashed = self.tokens, hash_tokens(self.tokens)
        return self._hashed[1]

    def __len__(self) -> int:
        return len(self.tokens) - self.block_size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        idx, targets = self.batch([index % len(self)])
        return idx[0], targets[0]

    def batch(self, starts: Sequence[int] | Windows) -> tuple[Tensor, Tensor]:
        """Return (idx, targets), each (B, block_size) int64, of the windows at `starts`.

        After the last token of the text comes its first.
        """
        window = np.arange(self.block_size + 1)
        positions = np.asarray(starts)[:, None] + window
        tokens = self.tokens.take(positions, mode="wrap").astype(np.int64)
        batch = torch.from_numpy(tokens)
        return batch[:, :-1], batch[:, 1:]


class CharDataset(TokenDataset):
    """Windows over the characters of `text`, which is normalised as prompts will be.

    The vocabulary is that of `text` unless a `tokenizer` is given; the same text gives the same.
    """

    def __init__(self, text: str, block_size: int, tokenizer: Tokenizer | None = None) -> None:
        text = normalise(arguments.text("text", text))
        self.tokenizer = tokenizer or CharTokenizer.train(text)
        super().__init__(self.tokenizer.encode(text), block_size)

    def encoded_with(self, tokenizer: Tokenizer) -> "CharDataset":
        """Return the same text in the tokens of another tokenizer."""
        return CharDataset(self.tokenizer.decode(self.tokens), self.block_size, tokenizer)


def draw_windows(n_windows: int, count: int, *, seed: int, step: int, stream: int = 0) -> Windows:
    """Return `count` windows drawn at random, a function of (seed, step, stream) alone.

    Training draws from stream 0 and evaluation from another, so that neither disturbs the other.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed + (stream << 32), step]))
    return generator.integers(n_windows, size=count)


def draw_epoch(dataset: Dataset, count: int, *, seed: int, step: int) -> Windows:
    """Return the `count` windows of `step`, each once an epoch: a function of (seed, step) alone.

    In each epoch the N tokens of a text, a ring whose first token follows its last, are cut into
    N // T windows of T = block_size targets from a token drawn at random. So no token is a target
    twice in an epoch, and all are once but N % T: those before the cut, elsewhere in each epoch.
    Of any other dataset an epoch has each item once.
    """
    if not isinstance(dataset, TokenDataset):
        return draw_each_once(len(dataset), step * count, count, seed=seed)[0].astype(np.int64)
    tokens, block_size = len(dataset.tokens), dataset.block_size
    windows, keys = draw_each_once(tokens // block_size, step * count, count, seed=seed)
    return ((keys % tokens + windows * block_size) % tokens).astype(np.int64)


def draw_documents(layout: Layout, count: int, *, seed: int, step: int) -> Windows:
    """Return the `count` windows of `step`, each of `layout` once an epoch, as `draw_epoch`."""
    numbers = draw_each_once(len(layout.windows), step * count, count, seed=seed)[0]
    return layout.windows[numbers.astype(np.int64)]


def lay_out_documents(dataset: Dataset) -> Layout:
    """Return the windows of a text that follow its documents; DataError where it knows of none."""
    if not isinstance(dataset, TokenDataset) or not dataset.separator:
        raise DataError(
            "sampling: found documents; allowed: epoch or random for a text without a separator of"
            " its own between documents"
        )
    return lay_out(dataset.tokens, dataset.separator, dataset.block_size)


def get_batch(dataset: Dataset, windows: Sequence[int] | Windows) -> tuple[Tensor, Tensor]:
    """Return (idx, targets), each (B, block_size) int64, of `windows` of any map-style dataset."""
    if isinstance(dataset, TokenDataset):
        return dataset.batch(windows)
    items = (as_pair(dataset[int(window)]) for window in windows)
    idx, targets = zip(*items, strict=True)
    if lengths := sorted({len(row) for row in idx})[1:]:
        raise DataError(
            f"windows of a dataset: found some of {lengths[0]} tokens; allowed: one length"
        )
    return torch.stack(idx), torch.stack(targets)


def as_pair(item: Any) -> tuple[Tensor, Tensor]:
    """Return an item of a dataset as (idx, targets), int64; DataError where it is none."""
    try:
        idx, targets = (torch.as_tensor(part) for part in item)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"an item of a dataset: found {type(item).__name__}; {PAIR}") from error
    kinds = {part.dtype.is_floating_point or part.dtype == torch.bool for part in (idx, targets)}
    if kinds != {False} or idx.dim() != 1 or not len(idx) or idx.shape != targets.shape:
        found = " and ".join(f"{part.dtype} {tuple(part.shape)}" for part in (idx, targets))
        raise DataError(f"an item of a dataset: found {found}; {PAIR}")
    return idx.long(), targets.long()


def as_token_array(tokens: Any, *, name: str = "the text") -> TokenArray:
    """Return token numbers (N,) as an unsigned array; DataError where they are none.

    What is unsigned already, such as a file's tokens, is not copied.
    """
    try:
        array = np.asanyarray(tokens)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name}: found {type(tokens).__name__}; allowed: token numbers") from error
    if array.ndim == 1 and not array.size:
        return cast(TokenArray, array.astype(np.uint16))
    if array.ndim != 1 or array.dtype.kind not in "iu":
        found = f"{array.dtype} of the shape {array.shape}"
        raise DataError(f"{name}: found {found}; allowed: integers (N,)")
    if array.dtype in (np.uint16, np.uint32):
        return cast(TokenArray, array)
    if array.min() < 0 or array.max() >= 2**32:
        raise DataError(
            f"{name}: found the token {min(array.min(), 0) or array.max()}; allowed: from 0"
        )
    return cast(TokenArray, array.astype(token_dtype(int(array.max()) + 1)))


def check_dataset(dataset: Any, *, name: str, block_size: int, vocab_size: int) -> None:
    """Raise DataError where `dataset` is none that a model can be trained on."""
    if isinstance(dataset, data.DataLoader):
        raise DataError(
            f"{name}: found a DataLoader; allowed: a dataset, such as its .dataset; training makes"
            " batches itself, of batch_size"
        )
    if isinstance(dataset, str | bytes | Mapping) or not (
        hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    ):
        raise DataError(
            f"{name}: found {type(dataset).__name__}; allowed: dataset[i] -> (idx, targets)"
        )
    if not len(dataset):
        raise DataError(f"{name}: found an empty dataset; allowed: at least one window")
    size = len(as_pair(dataset[0])[0])
    if size > block_size:
        raise DataError(
            f"{name}: found windows of {size} tokens; allowed: at most block_size {block_size}"
        )
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


def load_prepared_tokenizer(folder: str | Path) -> Tokenizer:
    """Return the tokenizer of a prepared folder; DataError where it is not the folder's own."""
    path = Path(folder, "tokenizer.json")
    _check_listed(path, hash_file(path))
    return read_tokenizer(path)


def prepared_splits(folder: str | Path) -> list[str]:
    """Return the names of a prepared folder's splits: train, val and, where it has one, test."""
    return list(_describe(folder, "splits", dict))


def text_of_split(folder: str | Path, split: str) -> str | None:
    """Return the SHA-256 of the text of a split; None where dataset.json does not tell it."""
    found: str | None = _describe(folder, "sha256", dict, default={}).get(split)
    return found


def load_tokens(folder: str | Path, split: str) -> TokenArray:
    """Return the tokens of one split, mapped from its file.

    DataError where it is missing, or damaged: it is read once, at more than a GB a second, which
    also brings into memory what the random windows of training will ask for.
    """
    return _load_hashed(folder, split)[0]


def load_split(folder: str | Path, split: str, block_size: int) -> TokenDataset:
    """Return one split of a prepared folder as a dataset; DataError as in `load_tokens`."""
    tokens, sha256 = _load_hashed(folder, split)
    found = _describe(folder, "separator", dict, default={})
    separator = [] if found.get("text") == "\n" else found.get("tokens", [])
    name = f"the {split} split"
    dataset = TokenDataset(tokens, block_size, name=name, separator=separator)
    dataset._hashed = tokens, sha256  # states of runs ask for it: ten GB are not read twice
    return dataset


def _load_hashed(folder: str | Path, split: str) -> tuple[TokenArray, str]:
    path = Path(folder, f"{split}.bin")
    size = _describe(folder, "vocabulary", int)
    try:
        tokens = np.memmap(path, dtype=np.dtype(token_dtype(size)).newbyteorder("<"), mode="r")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}; run `dvc repro prepare`") from error
    sha256 = hash_tokens(tokens)
    _check_listed(path, sha256)
    return tokens, sha256


def hash_tokens(tokens: TokenArray) -> str:
    """Return the SHA-256 of the bytes of `tokens`: of those mapped from a file, the file's."""
    return files.sha256(np.ascontiguousarray(tokens).data)


def _check_listed(path: Path, sha256: str) -> None:
    """Raise DataError where dataset.json has another SHA-256 of the file beside it."""
    if _describe(path.parent, FILES, dict).get(path.name) != sha256:
        raise DataError(f"{path}: {DAMAGED} (dataset.json); {AGAIN}")


def _describe(folder: str | Path, key: str, kind: type, *, default: Any = None) -> Any:
    """Return what dataset.json says; DataError where it does not."""
    path = Path(folder, "dataset.json")
    try:
        description = read_sealed(path)
    except DataError as error:
        raise DataError(f"{error}; {AGAIN}") from error
    found = description.get(key, default) if isinstance(description, dict) else None
    if not isinstance(found, kind):
        raise DataError(f"{path}: damaged: it tells no {key}; {AGAIN}")
    return found
