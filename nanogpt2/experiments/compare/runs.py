"""A run as git and DVC keep it: parameters, figures, curves, samples, hashes, and its way back."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from nanogpt2.base.system.files import parse_object, sha256
from nanogpt2.config import yaml12
from nanogpt2.config.config import NOT_TRAINING
from nanogpt2.config.schema import flatten
from nanogpt2.experiments.proof.record import LOCK, PARAMETERS, entries_of, parameters_of, stages_of

TRAIN, EVAL = "metrics/train.json", "metrics/eval.json"
LOSS, POSITION, TOKENS = "plots/loss.csv", "plots/position.csv", "plots/tokens.csv"
PATHS = (PARAMETERS, LOCK, TRAIN, EVAL, LOSS, POSITION, TOKENS)  # all of them in git
SAMPLES, COPIES, PREPARED = "samples", "metrics/copies.txt", "data/prepared"
HASHED = {  # output: what it is, in words
    PREPARED: "prepared data",
    "checkpoints/best_model.pt": "best model",
    "checkpoints/final_model.pt": "last model",
    SAMPLES: "samples",
}
MACHINE = NOT_TRAINING & {"device", "compile", "num_processes", "parallel"}
MACHINE |= {"save_checkpoint", "checkpoint_interval", "checkpoint_dir"}  # they change no result
CODE = ("nanogpt2/", "stages/")


@dataclass(frozen=True)
class Run:
    """One run: a row of the report. What is None or empty is not known.

    `kind` is workspace, running, commit or experiment; of an experiment `base` is the commit that
    it was run on. `curve` has lists of the same length: iter, train_loss and val_loss, in nats per
    token.
    """

    name: str
    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)  # flat: evaluate.stride is one key
    figures: Mapping[str, float] = field(default_factory=dict)  # flat: val.loss
    texts: Mapping[str, str] = field(default_factory=dict)  # which text each split is
    curve: Mapping[str, Sequence[float]] = field(default_factory=dict)
    position: Mapping[str, Sequence[float]] = field(default_factory=dict)
    tokens: Sequence[Mapping[str, Any]] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)  # MD5 by output, as dvc.lock has it
    setting: str = ""  # the same for runs that differ by their seeds alone
    code: str = ""  # the same for runs of the same code, where dvc.lock tells
    commit: str | None = None
    base: str | None = None
    time: int | None = None  # seconds since 1970
    subject: str = ""
    notes: Sequence[str] = ()
    progress: Mapping[str, Any] = field(default_factory=dict)  # of a training under way
    report: Mapping[str, Any] = field(default_factory=dict)  # logs/train.json


def read_run(name: str, kind: str, contents: Mapping[str, bytes | None], **known: Any) -> Run:
    """Return the run whose files in git have the `contents`, by their paths."""
    texts = {
        path: (contents.get(path) or b"").decode("utf-8", "replace").replace("\r\n", "\n")
        for path in PATHS
    }
    given, stages = flatten(_parse_yaml(texts[PARAMETERS])), stages_of(_parse_yaml(texts[LOCK]))
    recorded = flatten({k: v for each in stages.values() for k, v in parameters_of(each).items()})
    stale = sorted(key for key, value in recorded.items() if key in given and given[key] != value)
    figures = parse_object(texts[EVAL])
    train = parse_object(texts[TRAIN])
    params, used = {**given, **recorded}, _used(stages)
    return Run(
        name,
        kind,
        params=params,
        figures=dict(_numbers(figures)) | {f"train.{k}": v for k, v in _numbers(train)},
        texts={split: str(row["text"]) for split, row in figures.items() if _has_text(row)},
        curve=_columns(texts[LOSS]),
        position=_columns(texts[POSITION]),
        tokens=list(csv.DictReader(io.StringIO(texts[TOKENS]))),
        hashes={path: md5 for path, md5 in _outputs(stages) if path in {*HASHED, COPIES}},
        setting=_digest([_without_seed(params), used]) if figures or train else "",
        code=_digest({k: v for k, v in used.items() if k.startswith(CODE)}) if used else "",
        notes=[f"not run with what {PARAMETERS} says of {', '.join(stale)}"] if stale else [],
        **known,
    )


def has_results(run: Run) -> bool:
    """Return whether there is anything to show of `run`."""
    return bool(run.curve or run.figures or run.progress)


def tokens_per_step(params: Mapping[str, Any]) -> int | None:
    """Return the tokens that one step trains on, None where parameters do not tell."""
    keys = ("batch_size", "gradient_accumulation_steps", "block_size")
    values = [params.get(key, 1 if key == keys[1] else None) for key in keys]
    whole = [value for value in values if isinstance(value, int)]
    return math.prod(whole) if len(whole) == len(keys) else None


# --- What files hold ---


@cache
def _parse_yaml(text: str) -> dict[str, Any]:
    return yaml12.parse_record(text)


def _numbers(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in flatten(values).items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield key, value


def _has_text(row: Any) -> bool:
    return isinstance(row, dict) and isinstance(row.get("text"), str)


def _columns(text: str) -> dict[str, list[float]]:
    """Return the columns of a CSV file of numbers; a row that is none is left out."""
    rows = csv.reader(io.StringIO(text))
    head = next(rows, [])
    numbers = []
    for row in rows:
        try:
            values = [float(cell) for cell in row]
        except ValueError:
            continue
        if len(values) == len(head) and all(map(math.isfinite, values)):
            numbers.append(values)
    return {key: [row[place] for row in numbers] for place, key in enumerate(head) if numbers}


def _outputs(stages: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for stage in stages.values():
        for entry in entries_of(stage, "outs"):
            yield str(entry["path"]), str(entry.get("md5"))


def _used(stages: Mapping[str, Any]) -> dict[str, str]:
    """Return the data and code that a run was made of: their hashes, by their paths."""
    made = {path for path, _ in _outputs(stages)} - {PREPARED, "data/init/model.pt"}
    return {
        str(entry["path"]): str(entry.get("md5"))
        for name in ("train", "evaluate")
        for entry in entries_of(stages.get(name, {}), "deps")
        if entry["path"] not in made
    }


def _without_seed(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that change the figures of a run, its seed apart."""
    return {
        key: value
        for key, value in params.items()
        if key != "seed" and key not in MACHINE and not key.startswith("sample.")
    }


def _digest(value: Any) -> str:
    return sha256(json.dumps(value, sort_keys=True, default=str).encode("utf-8"))[:12]
