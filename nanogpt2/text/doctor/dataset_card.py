"""A dataset card in Hugging Face's form: https://huggingface.co/docs/hub/datasets-cards.

Made of dataset.json alone; model cards tell of their data in the same words.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from nanogpt2.text.doctor.markdown import table, yaml_lines

SOURCES_SHOWN = 20


def make_dataset_card(description: Mapping[str, Any], *, name: str) -> str:
    """Return the card of the prepared data that `description` (dataset.json) is of, as Markdown."""
    metadata = {
        "pretty_name": name,
        "task_categories": ["text-generation"],
        "tags": ["nanogpt2"],
    }
    sections = {
        "Sources": describe_sources(description),
        "Splits": describe_splits(description),
        "Tokenizer": _tokenizer(description),
        "Cleaning": _cleaning(description),
        "Warnings": [f"- {warning}." for warning in description.get("warnings", [])],
        "Licence": ["Not told: it is that of the sources."],
    }
    lines = ["---", *yaml_lines(metadata), "---", "", f"# {name}", "", _summary(description)]
    for title, section in sections.items():
        if section := list(section):
            lines += ["", f"## {title}", "", *section]
    return "\n".join(lines) + "\n"


def _summary(description: Mapping[str, Any]) -> str:
    n_files = len(description["sources"])
    return (
        f"Plain text for training a language model with nanoGPT2: {n_files:,}"
        f" file{'s' * (n_files != 1)}, {description['characters']:,} characters,"
        f" {description['tokens']:,} tokens. It is in Unicode's form NFC, with \\n newlines."
    )


def describe_sources(description: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of the files that the text is from, with what was not read."""
    sources = description["sources"]
    rows = [[f"`{s['path']}`", f"{s['bytes']:,}", f"`{s['sha256']}`"] for s in sources]
    yield from table(["file", "bytes", "SHA-256"], rows[:SOURCES_SHOWN])
    if len(rows) > SOURCES_SHOWN:
        yield f"\nand {len(rows) - SOURCES_SHOWN} more files, {len(rows)} in all."
    if passed_over := description.get("passed_over"):
        kinds = ", ".join(f"{count} {kind}" for kind, count in passed_over.items())
        yield f"\nPassed over, not read: {kinds}."


def describe_splits(description: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of the splits."""
    rows = [
        [name, f"{part['tokens']:,}", f"{part['bytes']:,}", f"`{description['sha256'][name]}`"]
        for name, part in description["splits"].items()
    ]
    yield from table(["split", "tokens", "bytes", "SHA-256 of its text"], rows)


def _tokenizer(description: Mapping[str, Any]) -> Iterator[str]:
    n_bytes = sum(part["bytes"] for part in description["splits"].values())
    yield (
        f"{description['tokenizer']}: {description['vocabulary']:,} tokens,"
        f" {description['tokens'] / max(1, n_bytes):.3f} tokens a byte."
    )


def _cleaning(description: Mapping[str, Any]) -> Iterator[str]:
    """Yield what each switch under `clean:` removed, as dataset.json counts it."""
    removed = description.get("removed", {})
    rows = [
        [f"`clean.{switch}`", f"{did['characters']:,}", _places(did["places"])]
        for switch, did in removed.items()
    ]
    if rows:
        yield from table(["switch", "characters removed", "places"], rows)
    else:
        yield "Nothing was removed."


def _places(places: int | Mapping[str, int]) -> str:
    """Return how many places, of a cleaner that tells kinds apart by kind."""
    if isinstance(places, int):
        return f"{places:,}"
    return ", ".join(f"{kind}: {count:,}" for kind, count in places.items())
