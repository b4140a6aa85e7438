"""What prepared data is, in words and figures: dataset.json, warnings, and lines for people."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError
from nanogpt2.text.cleaning.cleaner import Tally
from nanogpt2.text.copies.held_out import LENGTH
from nanogpt2.text.prepare.encode import SplitFile
from nanogpt2.text.prepare.layout import Positions
from nanogpt2.text.reading import corpus
from nanogpt2.tokens.bpe.bpe import BytePairTokenizer
from nanogpt2.tokens.tokenizer import Tokenizer

OVERLAP_ALLOWED = 0.01  # share of a held-out split's windows
NEAR_COPIES_IN_TRAIN = 0.1  # share of the train split
SHOWN = 5  # tokens that a warning shows


def describe_splits(splits: Mapping[str, SplitFile]) -> dict[str, Any]:
    """Return the sizes of the splits, and their places where they stand one after the other."""
    start, described = 0, {}
    for name, each in splits.items():
        described[name] = {
            "characters": [start, start + each.characters],  # the end not included
            "bytes": each.bytes,
            "tokens": each.tokens,
        }
        start += each.characters
    return described


def count_pieces(pieces: Positions) -> dict[str, int]:
    """Return how many `pieces` (N, 2) there are, and how many characters they have."""
    return {"characters": int((pieces[:, 1] - pieces[:, 0]).sum()), "places": len(pieces)}


def add_tallies(parts: Iterable[Mapping[str, Tally]]) -> dict[str, Any]:
    """Return what the switches of `clean` took from all parts of a corpus."""
    sums: dict[str, Tally] = {}
    for part in parts:
        for switch, tally in part.items():
            sums[switch] = sums.get(switch, Tally()) + tally
    return {switch: tally.to_dict() for switch, tally in sums.items()}


def find_unseen(used: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, list[int]]:
    """Return the tokens that each held-out split has and train has not, of those `used` by each."""
    return {
        name: np.flatnonzero(part & ~used["train"]).tolist()
        for name, part in used.items()
        if name != "train"
    }


def warn_of_size(sources: Sequence[corpus.Source]) -> list[str]:
    """Return a warning where the text is little."""
    size = sum(source.bytes for source in sources)
    if size >= corpus.SMALL_CORPUS_BYTES:
        return []
    return [f"{size:,} bytes of text are little: 1 MB or more is advised"]


def warn_of_bytes(tokenizer: Tokenizer) -> list[str]:
    """Return a warning where byte pair encoding was given no room to join bytes."""
    if not isinstance(tokenizer, BytePairTokenizer) or tokenizer.merges:
        return []
    return [
        f"vocab_size: {tokenizer.size} is just the bytes, so that bpe joins none of them; a larger"
        " one, such as 2048, gives pieces of words"
    ]


def warn_of_overlap(overlap: Mapping[str, float]) -> list[str]:
    """Return a warning for each held-out split of which more than chance stands in train too."""
    return [
        f"{share:.1%} of the {name} split's windows of {LENGTH} characters stand in"
        " the train split too, so its loss flatters the model: remove repeated text"
        for name, share in overlap.items()
        if share > OVERLAP_ALLOWED
    ]


def warn_of_near_copies(copies: Mapping[str, Any]) -> list[str]:
    """Return a warning for each split much of which stands nearly so in train."""
    shares = {
        name: each["in_train"] / max(1, each["copied"] + each["unique"])
        for name, each in copies.get("near_copies", {}).items()
    }
    return [
        f"{share:.1%} of the {name} split stand nearly so in the train split too"
        f"{' earlier' * (name == 'train')}; clean.near_copies: remove takes them out"
        for name, share in shares.items()
        if share > (NEAR_COPIES_IN_TRAIN if name == "train" else OVERLAP_ALLOWED)
    ]


def warn_of_unseen(unseen: Mapping[str, Sequence[int]], tokenizer: Tokenizer) -> list[str]:
    """Return a warning where tokens stand only in held-out text."""
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
    for switch, found in description["removed"].items():
        lines.append(f"{switch}: {found['characters']:,} characters removed")
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
