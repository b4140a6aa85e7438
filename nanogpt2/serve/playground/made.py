"""How a model was made, as the page tells it: data, figures, commit, parameters, hashes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nanogpt2.config.yaml12 import show
from nanogpt2.experiments.pages.elements import cell, element, number, row, table, text
from nanogpt2.experiments.proof.card import METRICS, Facts
from nanogpt2.model.gpt import GPT


def how_it_was_made(model: GPT, facts: Facts | None, origin: Mapping[str, Any], bits: str) -> str:
    """Return the section as HTML; what is not known is left out, or said to be."""
    hashes = dict(facts.hashes) if facts else {}
    listed = {
        "Weights": f"{model.count_parameters():,}, {bits}",
        "Training data": _data(facts),
        "SHA-256 of dataset.json": origin.get("dataset"),
        "Trained": _trained(origin),
        "Started from": origin.get("init"),
        "Followed": ", ".join(origin.get("teachers", ())) or None,
        "Commit": _commit(facts),
    }
    terms = "".join(
        f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in listed.items() if value
    )
    config = model.config.resolved().training_dict()
    parts = [
        f"<dl>{terms}</dl>",
        _figures(facts),
        _folded("Files", _table("file", "SHA-256", hashes.items())) if hashes else "",
        _folded("Parameters", _table("key", "value", _shown(config))),
        *(f"<p>Not told: {text(note)}</p>" for note in (facts.notes if facts else ())),
    ]
    return element("section", "<h2>How it was made</h2>" + "\n".join(parts), id="made")


def _data(facts: Facts | None) -> str | None:
    data = facts.dataset if facts else None
    if data is None:
        return None
    sources = data.get("sources", [])
    name = str(sources[0]["path"]) if len(sources) == 1 else f"{len(sources):,} files"
    return f"{name}: {data['characters']:,} characters, {data['tokens']:,} tokens"


def _trained(origin: Mapping[str, Any]) -> str | None:
    words = {"iter": "{:,} steps", "train_loss": "training loss {}", "val_loss": "validation {}"}
    told = [form.format(origin[key]) for key, form in words.items() if key in origin]
    return ", ".join(told) or None


def _commit(facts: Facts | None) -> str | None:
    if facts is None or not facts.commit:
        return None
    changed = f"; not as there: {', '.join(facts.changed)}" if facts.changed else ""
    return facts.commit + changed


def _figures(facts: Facts | None) -> str:
    found = facts.figures if facts else None
    splits = {
        name: each
        for name, each in (found or {}).items()
        if isinstance(each, dict) and METRICS.keys() <= each.keys()
    }
    rows = [
        row(text(name), (number(each[key], f"{each[key]:.4f}") for key in METRICS))
        for name, each in splits.items()
    ]
    head = ["split", *map(text, METRICS.values())]
    return table("Figures, of the whole weights", head, rows) if rows else ""


def _shown(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    return ((key, show(value)) for key, value in config.items())


def _table(first: str, second: str, items: Iterable[tuple[str, str]]) -> str:
    return table(second, [first, second], [row(text(key), [cell(value)]) for key, value in items])


def _folded(title: str, inner: str) -> str:
    return f"<details><summary>{text(title)}</summary>{inner}</details>"
