"""Preparation: a corpus becomes one token file a split, its tokenizer, and a description."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nanogpt2.base import files
from nanogpt2.base.checksums import FILES, hash_files, write_sealed
from nanogpt2.base.errors import DataError
from nanogpt2.copies.overlap import character_codes, share_of_windows
from nanogpt2.text import corpus
from nanogpt2.tokens.arrays import TokenArray
from nanogpt2.tokens.tokenizer import Tokenizer, check_vocab_size, load_tokenizer, train_tokenizer

OVERLAP_LENGTH = 100  # characters: more than what people write alike by chance
OVERLAP_ALLOWED = 0.01  # share of a held-out split's windows
SHOWN = 5  # tokens that a warning shows
CHUNK = 2**20  # tokens looked at together: numpy makes eight bytes of each


def prepare(
    source: str | Path,
    folder: str | Path,
    *,
    tokenizer: str | Mapping[str, Any],
    vocab_size: int,
    fractions: tuple[float, float],
    block_size: int | None = None,
) -> dict[str, Any]:
    """Read the corpus `source`, write `folder` anew and return its description (dataset.json).

    `tokenizer` is the name of one that is made for the text, or plain data that describes one,
    whatever `vocab_size` is. `fractions` are those of the val and test splits. Raises DataError,
    with `folder` as it was, where the text cannot be used, needs more than `vocab_size` tokens or
    changed while it was read, and, with a `block_size`, where a split is too short to be trained on
    or evaluated.
    """
    source, folder = Path(source), Path(folder)
    text, sources = corpus.read_corpus(source)
    passed_over = corpus.count_passed_over(source, but=folder)
    parts = corpus.split(text, val_fraction=fractions[0], test_fraction=fractions[1])
    if isinstance(tokenizer, str):
        trained = train_tokenizer(tokenizer, text)
        check_vocab_size(vocab_size, trained.size)
    else:
        trained = load_tokenizer(tokenizer)
    tokens = {name: trained.encode(part) for name, part in parts.items()}
    if block_size is not None:
        sizes = {name: len(each) for name, each in tokens.items()}
        corpus.check_sizes(sizes, block_size, corpus=source)
    overlap, unseen = measure_overlap(parts), find_unseen(tokens, trained.size)
    description = {
        "tokenizer": trained.name,
        "vocabulary": trained.size,
        "characters": len(text),
        "tokens": sum(map(len, tokens.values())),
        "splits": _describe_splits(parts, tokens),
        "sha256": {name: files.sha256(part.encode("utf-8")) for name, part in parts.items()},
        "overlap": {"window": OVERLAP_LENGTH, **overlap},
        "only_held_out": {name: len(each) for name, each in unseen.items()},
        "sources": [vars(source) for source in sources],
        "passed_over": passed_over,
        "warnings": _warnings(sources, overlap) + _warn_of_unseen(unseen, trained),
    }

    def fill(new: Path) -> None:
        for name, array in tokens.items():
            (new / f"{name}.bin").write_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
        write_sealed(new / "tokenizer.json", trained.to_dict())
        description[FILES] = hash_files(new, [path.name for path in new.iterdir()])
        write_sealed(new / "dataset.json", description)
        # DVC hashes the corpus once the stage is over, and would take it for what was read
        corpus.check_unchanged(source, sources)

    files.replace_folder(folder, fill)
    return description


def measure_overlap(parts: dict[str, str]) -> dict[str, float]:
    """Return what share of each held-out split's windows of 100 characters the train split has."""
    train = character_codes(parts["train"])
    return {
        name: files.rounded(share_of_windows([character_codes(part)], train, OVERLAP_LENGTH))
        for name, part in parts.items()
        if name != "train"
    }


def find_unseen(tokens: Mapping[str, TokenArray], n_tokens: int) -> dict[str, list[int]]:
    """Return the tokens (of 0 .. n_tokens - 1) that each held-out split has and train has not."""
    used = {name: _used(part, n_tokens) for name, part in tokens.items()}
    trained = used.pop("train")
    return {name: np.flatnonzero(part & ~trained).tolist() for name, part in used.items()}


def _used(tokens: TokenArray, n_tokens: int) -> npt.NDArray[np.bool_]:
    used = np.zeros(n_tokens, dtype=np.bool_)
    for start in range(0, len(tokens), CHUNK):
        used[tokens[start : start + CHUNK]] = True
    return used


def _describe_splits(parts: dict[str, str], tokens: dict[str, TokenArray]) -> dict[str, Any]:
    start, splits = 0, {}
    for name, part in parts.items():
        splits[name] = {
            "characters": [start, start + len(part)],  # of the whole text, the end not included
            "bytes": len(part.encode("utf-8")),
            "tokens": len(tokens[name]),
        }
        start += len(part)
    return splits


def _warnings(sources: list[corpus.Source], overlap: dict[str, float]) -> list[str]:
    warnings = []
    size = sum(source.bytes for source in sources)
    if size < corpus.SMALL_CORPUS_BYTES:
        warnings.append(f"{size:,} bytes of text are little: 1 MB or more is advised")
    for name, share in overlap.items():
        if share > OVERLAP_ALLOWED:
            warnings.append(
                f"{share:.1%} of the {name} split's windows of {OVERLAP_LENGTH} characters stand in"
                " the train split too, so its loss flatters the model: remove repeated text"
            )
    return warnings


def _warn_of_unseen(unseen: dict[str, list[int]], tokenizer: Tokenizer) -> list[str]:
    tokens = sorted({token for found in unseen.values() for token in found})
    if not tokens:
        return []
    shown = [_show(token, tokenizer) for token in tokens[:SHOWN]] + ["..."] * (len(tokens) > SHOWN)
    return [
        f"tokens that stand only in held-out text: {len(tokens)} ({', '.join(shown)}); training"
        " never sees them, so what the model gives them is chance"
    ]


def _show(token: int, tokenizer: Tokenizer) -> str:
    """Return the text of a token, or its number where it is only a part of a character."""
    text = tokenizer.decode([token])
    whole = "\ufffd" not in text or tokenizer.encode(text).tolist() == [token]
    return repr(text) if whole else f"token {token}"


def moved_splits(description: Mapping[str, Any], figures: Path) -> list[str]:
    """Return the held-out splits whose text is not the one that `figures` (eval.json) are of.

    None where there are no such figures, or where they do not tell their text.
    """
    try:
        recorded = files.read_json(figures)
    except DataError:
        return []
    rows = recorded if isinstance(recorded, dict) else {}
    return [
        name
        for name, sha256 in description["sha256"].items()
        if isinstance(row := rows.get(name), dict)
        and "text" in row
        and not sha256.startswith(str(row["text"]))
    ]


def describe(
    description: Mapping[str, Any], *, companions: int = 0, moved: Sequence[str] = ()
) -> str:
    """Return in a few lines what was read and written.

    `companions` are the files that editors and systems keep beside texts. DVC does not see them,
    so that the description, which it keeps, is free of them. `moved` are the held-out splits whose
    text is not that of recorded figures.
    """
    kept = {"kept by editors or systems": companions} if companions else {}
    n_files = len(description["sources"])
    read = sum(source["bytes"] for source in description["sources"])
    passed_over = corpus.list_kinds(description["passed_over"] | kept)
    lines = [
        f"read {n_files} file{'s' * (n_files != 1)}, {read:,} bytes,"
        f" {description['characters']:,} characters",
        *([f"passed over, not read: {passed_over}"] if passed_over else []),
        f"{description['tokenizer']} tokenizer: {description['vocabulary']:,} tokens",
    ]
    for name, part in description["splits"].items():
        lines.append(f"{name}: {part['tokens']:,} tokens, {part['bytes']:,} bytes")
    warnings = list(description["warnings"])
    if moved:
        warnings.append(
            f"the text of {' and '.join(moved)} is not that of the recorded figures, so new figures"
            " cannot be compared with them; files added, renamed or removed and other fractions"
            " move what is held out"
        )
    return "\n".join(lines + [f"warning: {warning}" for warning in warnings])
