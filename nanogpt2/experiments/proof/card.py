"""A model card in Hugging Face's form: https://huggingface.co/docs/hub/model-cards.

`make_card` writes it of plain values alone; `facts.py` gathers them in a project.
"""

import json
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nanogpt2.experiments.significance import CONFIDENCE, t_quantile
from nanogpt2.text.doctor.dataset_card import describe_sources, describe_splits
from nanogpt2.text.doctor.markdown import table, yaml_lines

METRICS = {  # of a split in eval.json, as its table has them
    "loss": "loss (nats per token)",
    "perplexity": "perplexity",
    "bits_per_byte": "bits per byte",
    "accuracy": "accuracy",
}
SAMPLES_SHOWN, SAMPLE_LENGTH = 3, 600  # texts, characters
NO_LICENCE = (
    "None is chosen yet: without one, nobody else may use the model. `--license mit` names one."
)


@dataclass(frozen=True)
class Facts:
    """What a card tells; what is None or empty is not known, and left out in words."""

    name: str
    config: Mapping[str, Any]  # the parameters on which the weights depend
    n_parameters: int
    tokenizer: str  # its kind, and its size in words
    library: str = "nanogpt2"  # or transformers, for an export
    licence: str | None = None  # an identifier, such as mit
    dataset: Mapping[str, Any] | None = None  # dataset.json
    figures: Mapping[str, Any] | None = None  # metrics/eval.json
    seeds: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)  # the same, by seed
    samples: Sequence[str] = ()
    commit: str | None = None
    changed: Sequence[str] = ()  # files that are not as in the commit
    hashes: Mapping[str, str] = field(default_factory=dict)  # SHA-256 by file
    started_from: str | None = None  # the SHA-256 of the weights that were fine-tuned
    followed: Sequence[str] = ()  # the SHA-256 of the weights of each teacher
    proof: Sequence[str] = ()  # lines of what was compared after an export
    notes: Sequence[str] = ()  # what is left out, and why


def make_card(facts: Facts) -> str:
    """Return the card as Markdown with YAML metadata."""
    sections = {
        "Use": _use(facts),
        "Licence": [facts.licence or NO_LICENCE],
        "Training data": _data(facts),
        "Figures": _figures(facts),
        "Memorisation": _memorisation(facts),
        "Samples": _samples(facts),
        "Export": [f"- {line}" for line in facts.proof],
        "Parameters": table(["key", "value"], [_row(item) for item in facts.config.items()]),
        "Reproduce": _reproduce(facts),
        "Not told": [f"- {note}" for note in facts.notes],
    }
    lines = [
        "---",
        *yaml_lines(make_metadata(facts)),
        "---",
        "",
        f"# {facts.name}",
        "",
        _summary(facts),
    ]
    for title, section in sections.items():
        if section := list(section):
            lines += ["", f"## {title}", "", *section]
    return "\n".join(lines) + "\n"


def make_metadata(facts: Facts) -> dict[str, Any]:
    """Return what Hugging Face reads at the head of the card; the language is not known."""
    known = {"license": facts.licence} if facts.licence else {}
    index = {"name": facts.name, "results": [_result(facts, split) for split in _splits(facts)]}
    return {
        **known,
        "library_name": facts.library,
        "pipeline_tag": "text-generation",
        "tags": ["nanogpt2", "gpt2" if facts.config["architecture"] == "gpt2" else "gpt"],
        **({"model-index": [index]} if index["results"] else {}),
    }


def _result(facts: Facts, split: str) -> dict[str, Any]:
    metrics = [
        {"type": metric, "name": words, "value": _interval(facts, split, metric)[0]}
        for metric, words in METRICS.items()
    ]
    dataset = {"name": _name_of_text(facts), "type": "text", "split": split}
    return {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics}


def _splits(facts: Facts) -> list[str]:
    rows = facts.figures or {}
    return [
        name for name, row in rows.items() if isinstance(row, dict) and METRICS.keys() <= {*row}
    ]


def _interval(facts: Facts, split: str, metric: str) -> tuple[float, float]:
    """Return the mean over seeds and half its interval; one run's figure, and 0, without seeds."""
    values = [float(row[split][metric]) for row in facts.seeds.values() if split in row]
    if len(values) < 2:
        return float((facts.figures or {})[split][metric]), 0.0
    error = statistics.stdev(values) / len(values) ** 0.5
    mean = round(statistics.fmean(values), 6)
    return mean, t_quantile(CONFIDENCE, len(values) - 1) * error


def _name_of_text(facts: Facts) -> str:
    sources = (facts.dataset or {}).get("sources", [])
    return str(sources[0]["path"]) if len(sources) == 1 else f"{len(sources)} files of text"


# --- Sections ---


def _summary(facts: Facts) -> str:
    config = facts.config
    began = "from scratch"
    if facts.started_from:
        began = f"from other weights (SHA-256 `{facts.started_from}`)"
    hashes = ", ".join(f"`{each}`" for each in facts.followed)
    taught = f", following the probabilities of other models (SHA-256 {hashes})" if hashes else ""
    return (
        f"A language model with {facts.n_parameters:,} parameters: n_layer {config['n_layer']},"
        f" n_embd {config['n_embd']}, {config['block_size']} tokens of context, a"
        f" {facts.tokenizer}. Trained {began} with nanoGPT2{taught}. It goes on from a text as its"
        " training text would; it follows no instructions and knows no facts."
    )


def _use(facts: Facts) -> list[str]:
    if facts.library == "transformers":
        code = [
            "from transformers import pipeline",
            "",
            'print(pipeline("text-generation", model="FOLDER")("The ")[0]["generated_text"])',
        ]
        return ["```python", *code, "```"]
    command = 'python -m nanogpt2 generate --checkpoint best_model.pt --prompt "The "'
    return ["```sh", command, "```"]


def _data(facts: Facts) -> Iterator[str]:
    data = facts.dataset
    if data is None:
        return
    yield f"{data['characters']:,} characters, {data['tokens']:,} tokens, of:"
    yield ""
    yield from describe_sources(data)
    yield ""
    yield from describe_splits(data)
    for warning in data.get("warnings", []):
        yield f"\nWarning: {warning}."


def _figures(facts: Facts) -> Iterator[str]:
    splits = _splits(facts)
    if not splits:
        return
    rows = [
        [split, *(_show_figure(facts, split, metric) for metric in METRICS)] for split in splits
    ]
    yield from table(["split", *METRICS.values()], rows)
    yield ""
    if len(facts.seeds) > 1:
        names = ", ".join(map(str, facts.seeds))
        yield (
            f"Means over the seeds {names}, and ± the {CONFIDENCE:.0%} interval of the mean"
            " (Student's t)."
        )
    else:
        yield (
            f"Single figures, of one run with seed {facts.config['seed']}: another seed gives"
            " others. Every token of a split is predicted once."
        )


def _show_figure(facts: Facts, split: str, metric: str) -> str:
    mean, margin = _interval(facts, split, metric)
    return f"{mean:.4f} ± {margin:.4f}" if len(facts.seeds) > 1 else f"{mean:.4f}"


def _memorisation(facts: Facts) -> Iterator[str]:
    found = (facts.figures or {}).get("memorisation")
    if not found:
        return
    samples, written = found["samples"], found["validation_text"]
    yield (
        f"Of all stretches of 50 characters in its samples, {samples['copied_windows']:.1%} stand"
        f" verbatim in the training text, the longest of {samples['longest']} characters. Of what"
        f" the author wrote in the validation text {written['copied_windows']:.1%} do,"
        f" the longest of {written['longest']}."
    )


def _samples(facts: Facts) -> Iterator[str]:
    for number, sample in enumerate(facts.samples[:SAMPLES_SHOWN]):
        text = sample[:SAMPLE_LENGTH] + "..." * (len(sample) > SAMPLE_LENGTH)
        longest = max(map(len, re.findall("`+", text)), default=0)
        fence = "`" * max(3, longest + 1)  # which no text can end
        yield from [""] * (number > 0)
        yield from (f"{fence}text", text, fence)


def _reproduce(facts: Facts) -> Iterator[str]:
    if facts.commit:
        yield "```sh"
        yield f"git checkout {facts.commit}"
        yield "make repro                     # or, in its environment, dvc repro"
        yield "python -m nanogpt2 verify      # do weights, data, code and record belong together?"
        yield "```"
        if facts.changed:
            yield f"\nNot as in that commit: {', '.join(f'`{name}`' for name in facts.changed)}."
        yield ""
    rows = [[f"`{path}`", f"`{sha256}`"] for path, sha256 in facts.hashes.items()]
    yield from table(["file", "SHA-256"], rows)


def _row(item: tuple[str, Any]) -> list[str]:
    return [f"`{item[0]}`", f"`{json.dumps(item[1], ensure_ascii=False)}`"]
