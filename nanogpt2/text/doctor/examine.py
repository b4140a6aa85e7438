"""The examination: a corpus read once, in blocks, and what was found in it as plain data."""

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nanogpt2.base.screen.screen import phase
from nanogpt2.base.system import files
from nanogpt2.text.doctor.findings import EXAMPLES, describe_findings
from nanogpt2.text.reading.corpus import count_passed_over, find_text_files, name_in
from nanogpt2.text.scan.recipe import Recipe
from nanogpt2.text.survey.characters import RARE, Kind, count_scripts, find_unusual
from nanogpt2.text.survey.copies import NearCopies, Sampler
from nanogpt2.text.survey.counting import Counted, count
from nanogpt2.text.survey.lines import Lengths, Repetition
from nanogpt2.text.survey.places import Shown, find_places
from nanogpt2.text.survey.prepared import Tokens, read_tokens
from nanogpt2.text.survey.reading import documents
from nanogpt2.text.survey.splits import Splits, choose


def examine(corpus: Path, recipe: Recipe, *, prepared: Path | None = None) -> dict[str, Any]:
    """Return what `corpus` holds and what is wrong with it, as plain data.

    `recipe` is how it would be prepared. `prepared` is a folder of prepared data, whose tokens are
    counted if it was made of this corpus. Raises DataError where there is no text.
    """
    with tempfile.TemporaryDirectory() as aside:
        sampler = Sampler(Path(aside)) if recipe.find_copies else None
        found = count(
            documents(corpus, text_field=recipe.text_field),
            look=sampler.add if sampler else None,
        )
        splits = choose(found.sizes, found.keys, recipe)
        with phase("looking for near copies"):
            near = sampler.find(splits) if sampler else None
    kinds, repetition = found.characters.kinds(), found.table.summarise(splits)
    wanted = _wanted(found, kinds, repetition, splits, near)
    again = documents(corpus, text_field=recipe.text_field)
    with phase("finding places"):
        shown = Shown(find_places(again, found.sizes, wanted))
    copied = max(repetition.characters, near.characters if near else 0)
    return {
        "corpus": str(corpus),
        "sources": _describe_sources(found, corpus, prepared),
        "splits": _describe_splits(splits, shown),
        "scripts": count_scripts(kinds),
        "characters": _describe_characters(kinds, shown),
        "tokens": _describe_tokens(found, kinds, read_tokens(corpus, prepared)),
        "lines": _describe_lines(found.lengths, shown),
        "repeated_lines": _describe_repetition(repetition, shown),
        "near_copies": _describe_near(near, shown) if near else None,
        "unique_characters": max(0, found.characters.total - copied),
        "findings": describe_findings(found, kinds, repetition, near, shown, recipe.clean),
    }


def _wanted(
    found: Counted,
    kinds: list[Kind],
    repetition: Repetition,
    splits: Splits,
    near: NearCopies | None,
) -> Iterator[int]:
    """Yield the characters of the corpus of which file and line are shown."""
    unusual = find_unusual(kinds)
    yield from map(splits.first, splits.sizes())
    yield from (kind.first for kind in kinds[-EXAMPLES:])
    odd = [kind for kind in kinds if kind.character in unusual]
    yield from (kind.first for kind in odd)
    yield from (start for _, start in found.lengths.longest)
    yield from (line.first for line in repetition.commonest)
    for fault in found.faults:
        yield from (example.first for example in fault.examples()[:EXAMPLES])
    for passage in near.longest if near else ():
        yield from (passage.start, passage.source)


def _describe_sources(found: Counted, corpus: Path, prepared: Path | None) -> dict[str, Any]:
    paths = find_text_files(corpus)
    sizes = {name_in(corpus, path): path.stat().st_size for path in paths}
    largest = sorted(found.sources, key=lambda source: (-sizes.get(source.path, 0), source.path))
    return {
        "files": len(found.sources),
        "documents": len(found.sizes),
        "bytes": sum(sizes.values()),
        "characters": found.characters.total,
        "utf8_bytes": found.characters.bytes,
        "lines": found.lengths.total,
        "kinds": dict(Counter(path.suffix.lower() for path in paths).most_common()),
        "passed_over": count_passed_over(corpus, but=prepared),
        "largest": [
            {**dataclasses.asdict(source), "bytes": sizes.get(source.path, 0)}
            for source in largest[:EXAMPLES]
        ],
    }


def _describe_splits(splits: Splits, shown: Shown) -> dict[str, Any]:
    runs = splits.runs()
    return {
        "kind": splits.kind,
        "parts": [
            {
                "name": name,
                "characters": size,
                "documents": runs[name] if splits.kind == "documents" else None,
                "begins": shown(splits.first(name)),
            }
            for name, size in splits.sizes().items()
        ],
    }


def _describe_characters(kinds: list[Kind], shown: Shown) -> dict[str, Any]:
    unusual = find_unusual(kinds)
    odd = [kind for kind in kinds if kind.character in unusual]

    def row(kind: Kind, *, placed: bool) -> dict[str, Any]:
        described = {"character": kind.character, "code": kind.code, "name": kind.name}
        place = {"first": shown(kind.first)} if placed else {}
        return described | {"count": kind.count} | place

    return {
        "distinct": len(kinds),
        "rare": sum(kind.count < RARE for kind in kinds),
        "commonest": [row(kind, placed=False) for kind in kinds[:EXAMPLES]],
        "rarest": [row(kind, placed=True) for kind in kinds[: -EXAMPLES - 1 : -1]],
        "n_unusual": len(odd),
        "unusual": [
            row(kind, placed=True) | {"why": unusual[kind.character]} for kind in odd[:EXAMPLES]
        ],
    }


def _describe_tokens(
    found: Counted, kinds: list[Kind], tokens: Tokens | None
) -> list[dict[str, Any]]:
    total, n_bytes = found.characters.total, found.characters.bytes
    rows = [
        Tokens("char", len(kinds), total, files.rounded(total / max(1, n_bytes))),
        Tokens("byte", 256, n_bytes, 1.0),
    ]
    if tokens is not None:
        rows = [*(row for row in rows if row.tokenizer != tokens.tokenizer), tokens]
    return [dataclasses.asdict(row) for row in rows]


def _describe_lines(lengths: Lengths, shown: Shown) -> dict[str, Any]:
    return {
        "total": lengths.total,
        "empty": int(lengths.counts[0]),
        "median": lengths.quantile(0.5),
        "p90": lengths.quantile(0.9),
        "p99": lengths.quantile(0.99),
        "long": lengths.long,
        "longest": [{"length": n, "first": shown(start)} for n, start in lengths.longest],
    }


def _describe_repetition(repetition: Repetition, shown: Shown) -> dict[str, Any]:
    return {
        "lines": repetition.lines,
        "characters": repetition.characters,
        "in_held_out": repetition.across,
        "is_estimate": repetition.is_estimate,
        "commonest": [
            {"count": line.count, "length": line.length, "first": shown(line.first)}
            for line in repetition.commonest
        ],
    }


def _describe_near(near: NearCopies, shown: Shown) -> dict[str, Any]:
    return {
        "passages": near.passages,
        "characters": near.characters,
        "in_held_out": near.in_held_out,
        "longest": [
            {
                "length": passage.length,
                "first": shown(passage.start),
                "source": shown(passage.source),
            }
            for passage in near.longest
        ],
    }
