"""Preparation: a corpus becomes one token file a split, its tokenizer, and a description."""

from pathlib import Path
from typing import Any

from nanogpt2.base import files
from nanogpt2.text import corpus
from nanogpt2.text.overlap import character_codes, share_of_windows
from nanogpt2.tokens.tokenizer import TokenArray, check_vocab_size, train_tokenizer

OVERLAP_LENGTH = 100  # characters: more than what people write alike by chance
OVERLAP_ALLOWED = 0.01  # share of a held-out split's windows


def prepare(
    source: Path, folder: Path, *, tokenizer: str, vocab_size: int, fractions: tuple[float, float]
) -> dict[str, Any]:
    """Read the corpus `source`, write `folder` anew and return its description (dataset.json).

    `fractions` are those of the val and test splits. Raises DataError, before anything is
    written, where the text cannot be used or needs more than `vocab_size` tokens.
    """
    text, sources = corpus.read_corpus(source)
    parts = corpus.split(text, val_fraction=fractions[0], test_fraction=fractions[1])
    trained = train_tokenizer(tokenizer, text)
    check_vocab_size(vocab_size, trained.size)
    tokens = {name: trained.encode(part) for name, part in parts.items()}
    overlap = measure_overlap(parts)
    description = {
        "tokenizer": tokenizer,
        "vocabulary": trained.size,
        "characters": len(text),
        "tokens": sum(map(len, tokens.values())),
        "splits": _describe_splits(parts, tokens),
        "overlap": {"window": OVERLAP_LENGTH, **overlap},
        "sources": [vars(source) for source in sources],
        "warnings": _warnings(sources, overlap),
    }

    def fill(new: Path) -> None:
        for name, array in tokens.items():
            (new / f"{name}.bin").write_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes())
        files.write_json(new / "tokenizer.json", trained.to_dict())
        files.write_json(new / "dataset.json", description)

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


def describe(description: dict[str, Any]) -> str:
    """Return in a few lines what was read and written."""
    n_files = len(description["sources"])
    read = sum(source["bytes"] for source in description["sources"])
    lines = [
        f"read {n_files} file{'s' * (n_files != 1)}, {read:,} bytes,"
        f" {description['characters']:,} characters",
        f"{description['tokenizer']} tokenizer: {description['vocabulary']:,} tokens",
    ]
    for name, part in description["splits"].items():
        lines.append(f"{name}: {part['tokens']:,} tokens, {part['bytes']:,} bytes")
    return "\n".join(lines + [f"warning: {warning}" for warning in description["warnings"]])
