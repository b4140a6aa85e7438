"""Records: the lowest validation loss that a recipe reaches in a fixed time (RECORDS.md).

    python benchmarks/records.py --board cpu --text tinyshakespeare.txt --entries nanogpt default
    python benchmarks/records.py --board gpu --text tinyshakespeare.txt --entries modern

`cpu` is 5 minutes on two cores, `gpu` 60 seconds on one GPU. The clock starts when the tokens are
in memory, before the model is made, and stops after the last update: what is compiled counts. The
rate's schedule follows the clock. The first 90% of the text is for training, and each character of
the rest is predicted once, from windows of block_size side by side; the loss is in nats a
character, whatever the tokens are. All entries run on the same machine, seed by seed, and each is
compared with the one before it. Each run is a line of `--out`: the same command goes on.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import laws
import quality
import runs

from nanogpt2.config import yaml12
from nanogpt2.config.config import get_config, read_values
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.experiments.candidates import SCHEDULE, train_for
from nanogpt2.experiments.significance import compare
from nanogpt2.model.gpt import GPT
from nanogpt2.text.reading.corpus import read_corpus, split
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.train.step import Stepper

SECONDS = {"cpu": 300.0, "gpu": 60.0}
ENTRIES = Path(__file__).parent / "records"  # a YAML file an entry
DEFAULT = "default"  # params.yaml


@dataclass(frozen=True)
class Job:
    """A run of an entry with a seed."""

    board: str
    text: Path
    entry: str
    seed: int
    seconds: float
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What its line is found by."""
        return f"{self.board}, {self.text.stem}, {self.entry}, seed {self.seed}"

    def __str__(self) -> str:
        return self.name


def read_entry(name: str) -> dict[str, Any]:
    """Return the values of an entry, with a schedule as long as the clock's."""
    if name == DEFAULT:
        values = read_values(Path(__file__).parents[1] / "params.yaml")[1]
    else:
        values = yaml12.read(ENTRIES / f"{name}.yaml")
    warmup = values["warmup_iters"] / values["max_iters"]
    return values | {"max_iters": SCHEDULE, "warmup_iters": round(warmup * SCHEDULE)}


def run_job(job: Job) -> dict[str, Any]:
    """Train for the board's seconds and return the line of the run."""
    values = read_entry(job.entry)
    parts = split(read_corpus(job.text)[0], val_fraction=0.1, test_fraction=0)
    bpe = values["vocab_size"] if values.pop("tokenizer", "char") == "bpe" else 0
    tokenizer = laws.make_tokenizer(parts["train"], parts["val"], bpe)
    device = "cuda" if job.board == "gpu" else "cpu"
    facts = {"vocab_size": tokenizer.size, "seed": job.seed, "device": device}
    config = get_config(values | facts)
    dataset = TokenDataset(tokenizer.encode(parts["train"]), config.block_size)
    held_out = tokenizer.encode(parts["val"])
    began = time.perf_counter()
    model = GPT(config)
    stepper = Stepper(model, config)
    made = time.perf_counter() - began
    steps = train_for(stepper, dataset, job.seconds - made, untimed=0)
    seconds = time.perf_counter() - began
    totals = evaluate_tokens(model, held_out, tokenizer, batch_size=quality.EVALUATION_BATCH).totals
    return {
        "entry": job.entry,
        "seed": job.seed,
        "loss": totals.nats / totals.tokens * len(held_out) / len(parts["val"]),
        "seconds": round(seconds, 2),
        "steps": steps,
        "parameters": model.count_parameters(),
        "machine": runs.describe_machine(stepper.device),
    }


def print_table(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print each entry's seeds, and how it differs from the one before."""
    print("| entry | n | mean | 95% interval | parameters | steps | seconds | each seed |")
    print("|---" * 8 + "|")
    for entry, own in rows.items():
        losses = [row["loss"] for row in own]
        print(
            f"| {entry} | {len(own)} | {statistics.fmean(losses):.4f} | {quality.interval(losses)}"
            f" | {own[0]['parameters']:,} | {statistics.median(r['steps'] for r in own):,.0f}"
            f" | {max(row['seconds'] for row in own):.1f}"
            f" | {' '.join(f'{loss:.4f}' for loss in losses)} |"
        )
    for old, new in zip(rows, list(rows)[1:], strict=False):
        before = {row["seed"]: row["loss"] for row in rows[old]}
        pairs = [(row["loss"], before[row["seed"]]) for row in rows[new] if row["seed"] in before]
        if len(pairs) > 1:
            found = compare(*zip(*pairs, strict=True))
            print(
                f"{new} minus {old}: {found.mean:+.4f} (99% interval {found.low:+.4f} to"
                f" {found.high:+.4f}), p = {found.p_value:.2g}"
            )


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--board", choices=SECONDS, required=True)
    parser.add_argument("--text", type=Path, required=True, help="a .txt file")
    parser.add_argument(
        "--entries", nargs="+", required=True, help=f"files in benchmarks/records, or {DEFAULT}"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, on cores apart")
    parser.add_argument("--first-core", type=int, default=0)
    parser.add_argument("--clock", type=float, help="seconds instead of the board's, for trying")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no run after these")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a run")
    return parser.parse_args()


def main() -> None:
    """Run what is missing of all entries with all seeds, and print the board."""
    options = parse_arguments()
    clock = options.clock or SECONDS[options.board]
    jobs = {
        (entry, seed): Job(options.board, options.text, entry, seed, clock)
        for seed in options.seeds  # outermost, so that a board cut off has whole pairs
        for entry in options.entries
    }
    failed = runs.run_all(
        jobs.values(),
        run_job,
        options.out,
        workers=options.workers,
        device="cuda" if options.board == "gpu" else "cpu",
        first_core=options.first_core if options.board == "cpu" else None,
        seconds=options.seconds,
    )
    lines = {row["name"]: row for row in runs.read_rows(options.out)}
    rows: dict[str, list[dict[str, Any]]] = {}
    for (entry, _), job in jobs.items():
        if job.name in lines:
            rows.setdefault(entry, []).append(lines[job.name])
    print_table(rows)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
