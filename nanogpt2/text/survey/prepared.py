"""What prepared data tells of its corpus: how often each token of its tokenizer stands in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nanogpt2.base.system import checksums, files
from nanogpt2.base.system.errors import NanoGPT2Error
from nanogpt2.text.reading.corpus import find_text_files, name_in
from nanogpt2.tokens.bpe.arrays import token_dtype
from nanogpt2.tokens.tokenizer import Tokenizer, read_tokenizer

SHOWN = 10
CHUNK = 1 << 22  # tokens counted at a time


@dataclass(frozen=True)
class Tokens:
    """The tokens of a tokenizer in a text: how many a byte of it takes, and which."""

    tokenizer: str
    vocabulary: int
    tokens: int
    per_byte: float
    unused: int = 0  # tokens of the vocabulary that stand nowhere
    commonest: tuple[tuple[str, int], ...] = ()  # text and count
    rarest: tuple[tuple[str, int], ...] = ()


def read_tokens(corpus: Path, folder: Path | None) -> Tokens | None:
    """Return the tokens of the prepared data in `folder`, if it was made of `corpus`.

    None where files have another name or size there, where it is not there, or is damaged.
    """
    if folder is None or not files.exists(folder / "dataset.json"):
        return None
    sources = {name_in(corpus, path): path.stat().st_size for path in find_text_files(corpus)}
    try:
        description = checksums.read_sealed(folder / "dataset.json")
        if not _is_of(description, sources):
            return None
        tokenizer = read_tokenizer(folder / "tokenizer.json")
        return _describe(tokenizer, _count(folder, description, tokenizer.size))
    except (NanoGPT2Error, OSError, KeyError, TypeError, ValueError):  # a corpus can do without
        return None


def _is_of(description: Mapping[str, Any], sources: Mapping[str, int]) -> bool:
    return {source["path"]: source["bytes"] for source in description["sources"]} == sources


def _count(folder: Path, description: Mapping[str, Any], size: int) -> npt.NDArray[np.int64]:
    counts = np.zeros(size, dtype=np.int64)
    kind = np.dtype(token_dtype(size)).newbyteorder("<")
    for split in description["splits"]:
        tokens = np.memmap(folder / f"{split}.bin", dtype=kind, mode="r")
        for start in range(0, len(tokens), CHUNK):
            counts += np.bincount(tokens[start : start + CHUNK], minlength=size)
    return counts


def _describe(tokenizer: Tokenizer, counts: npt.NDArray[np.int64]) -> Tokens:
    used = np.flatnonzero(counts)
    order = used[np.argsort(-counts[used], kind="stable")].tolist()
    n_bytes = sum(len(tokenizer.token_bytes(token)) * int(counts[token]) for token in order)

    def show(tokens: list[int]) -> tuple[tuple[str, int], ...]:
        texts = (
            tokenizer.token_bytes(token).decode("utf-8", "backslashreplace") for token in tokens
        )
        return tuple(zip(texts, counts[tokens].tolist(), strict=True))

    total = int(counts.sum())
    return Tokens(
        tokenizer=tokenizer.name,
        vocabulary=tokenizer.size,
        tokens=total,
        per_byte=files.rounded(total / max(1, n_bytes)),
        unused=tokenizer.size - len(order),
        commonest=show(order[:SHOWN]),
        rarest=show(order[: -SHOWN - 1 : -1]),
    )
