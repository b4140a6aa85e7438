"""Losses of models alone, of ensembles of them, and of students of the ensembles.

    python benchmarks/students.py --text tinyshakespeare.txt --setting modern --device cuda \
        --groups 3 --size 8 --folder models --out students.jsonl

The text is split, its tokens made and its validation part evaluated (side by side) as in
quality.py. Each group has `--size` models of one setting and different seeds, and `--students` of
the same shape which follow the group's mean probabilities; no two groups share a seed. Each model
is a file in `--folder`, each result a line of `--out`: the same command goes on with what is
missing. With `--device cuda` each GPU trains one model at a time, or `--workers` share them.
"""

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import quality
import runs
import torch

from nanogpt2.config import yaml12
from nanogpt2.config.config import get_config
from nanogpt2.decode.ensemble.ensemble import Ensemble, Model
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.evaluate.metrics import summarise
from nanogpt2.experiments.significance import compare
from nanogpt2.model.checkpoint import load_checkpoint, save_checkpoint
from nanogpt2.text.reading.corpus import read_corpus, split
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.tokens.tokenizer import CharTokenizer
from nanogpt2.train.distil.ahead import released

SETTINGS = {"modern": quality.MODERN, "long": quality.LONG, "cpu": quality.CPU}
SEEDS_OF_GROUP = 100


@dataclass(frozen=True)
class Job:
    """A model to train, or an ensemble of `needs` to evaluate where there are no `params`."""

    name: str
    kind: str  # alone, student, or the size of an ensemble
    group: int
    text: Path
    folder: Path
    device: str
    params: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def path(self, name: str) -> Path:
        """Return the file of the model `name`."""
        return self.folder / f"{name}.pt"


def run_job(job: Job) -> dict[str, Any]:
    """Train or load, evaluate, and return the line of the job."""
    source = read_corpus(job.text)[0]
    parts, tokenizer = split(source, val_fraction=0.1, test_fraction=0), CharTokenizer.train(source)
    row: dict[str, Any] = {"kind": job.kind, "group": job.group}
    model: Model
    if job.params:
        teachers = [str(job.path(name)) for name in job.needs]
        config = get_config({**job.params, "teachers": teachers, "vocab_size": tokenizer.size})
        dataset = TokenDataset(tokenizer.encode(parts["train"]), config.block_size)
        began = time.perf_counter()
        stepper = quality.train(config, dataset)
        row["seconds"] = round(time.perf_counter() - began, 1)
        row["machine"] = runs.describe_machine(stepper.device)
        row["config"] = config.training_dict() | {"teachers": list(job.needs)}
        model = stepper.model
        weights = released(model.state_dict())
        row["parameters"] = sum(weight.numel() for weight in weights.values())
        save_checkpoint(job.path(job.name), weights, config, tokenizer=tokenizer, origin={})
    else:
        loaded = [load_checkpoint(job.path(name), device=job.device).model for name in job.needs]
        model = Ensemble(loaded)
    tokens = tokenizer.encode(parts["val"])
    score = evaluate_tokens(model, tokens, tokenizer, batch_size=quality.EVALUATION_BATCH)
    figures = summarise(score.totals)
    return row | {"loss": figures["loss"], "characters": figures["tokens"]}


def make_jobs(options: argparse.Namespace) -> list[Job]:
    """Return all jobs, those that others need first."""
    alone: list[Job] = []
    together: list[Job] = []
    students: list[Job] = []
    facts = {"device": options.device, "mixed_precision": not options.float32}
    base = SETTINGS[options.setting] | facts | read_settings(options.setting_changes)
    where = {"text": options.text, "folder": options.folder, "device": options.device}
    for group in range(options.first_group, options.first_group + options.groups):
        seeds = [SEEDS_OF_GROUP * group + number for number in range(options.size)]
        names = [f"alone-{seed}" for seed in seeds]
        for name, seed in zip(names, seeds, strict=True):
            alone.append(Job(name, "alone", group, **where, params=base | {"seed": seed}))
        for size in sizes(options.size):
            needs = tuple(names[:size])
            together.append(Job(f"group-{group}-{size}", str(size), group, **where, needs=needs))
        for number in range(options.students):
            params = base | read_settings(options.student)
            params["seed"] = SEEDS_OF_GROUP * group + SEEDS_OF_GROUP // 2 + number
            name = f"student-{params['seed']}"
            needs = tuple(names)
            students.append(Job(name, "student", group, **where, params=params, needs=needs))
    order = {job.name: number for number, job in enumerate([*alone, *students, *together])}
    by_group = sorted([*alone, *students, *together], key=lambda job: (job.group, order[job.name]))
    return by_group


def sizes(largest: int) -> list[int]:
    """Return the sizes of ensembles: 2, 4, 8 and so on, and the largest."""
    powers = itertools.takewhile(lambda size: size < largest, (2**n for n in itertools.count(1)))
    return [*powers, largest]


def read_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Return the values of `key=value` texts."""
    settings: dict[str, Any] = {}
    for text in texts:
        settings |= yaml12.parse(text.replace("=", ": ", 1), name=text)
    return settings


def print_tables(rows: Sequence[dict[str, Any]]) -> None:
    """Print the losses of each kind, and how the students differ from the models alone."""
    kinds = sorted({row["kind"] for row in rows}, key=lambda kind: (not kind.isdigit(), kind))
    print("| what | n | mean | 95% interval | each |\n|---|---|---|---|---|")
    for kind in ["alone", *(k for k in kinds if k.isdigit()), "student"]:
        losses = [row["loss"] for row in rows if row["kind"] == kind]
        if losses:
            name = f"ensembles of {kind}" if kind.isdigit() else kind
            each = " ".join(f"{loss:.4f}" for loss in losses)
            mean = statistics.fmean(losses)
            print(f"| {name} | {len(losses)} | {mean:.4f} | {quality.interval(losses)} | {each} |")
    of = {kind: [row for row in rows if row["kind"] == kind] for kind in ("alone", "student")}
    pairs = list(zip(of["student"], of["alone"], strict=False))
    if len(pairs) > 1:
        difference = compare(*([row["loss"] for row in side] for side in zip(*pairs, strict=True)))
        print(
            f"\nstudents minus models alone, {len(pairs)} pairs: {difference.mean:+.4f}"
            f" (99% interval {difference.low:+.4f} to {difference.high:+.4f})"
        )


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, required=True, help="a .txt file")
    parser.add_argument("--setting", choices=SETTINGS, default="modern")
    parser.add_argument("-S", dest="setting_changes", action="append", default=[], metavar="K=V")
    parser.add_argument("--student", action="append", default=[], metavar="K=V")
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--first-group", type=int, default=1, help="seeds are by group")
    parser.add_argument("--size", type=int, default=8, help="models in a group")
    parser.add_argument("--students", type=int, default=1, help="of each group")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--float32", action="store_true", help="no mixed precision")
    parser.add_argument("--workers", type=int, help="models at a time; on GPUs one for each")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no job after these")
    parser.add_argument("--folder", type=Path, required=True, help="for the model files")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a result")
    return parser.parse_args()


def main() -> None:
    """Run what is missing and print the tables."""
    options = parse_arguments()
    options.folder.mkdir(parents=True, exist_ok=True)
    on_gpus = options.device == "cuda"
    workers = options.workers or (torch.cuda.device_count() if on_gpus else 1)
    failed = runs.run_all(
        make_jobs(options),
        run_job,
        options.out,
        workers=workers,
        device=options.device,
        seconds=options.seconds,
    )
    print_tables(runs.read_rows(options.out))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
