"""Runs of random shapes on pieces of many texts: what `nanogpt2.experiments.plan` was fitted to.

    python benchmarks/texts.py --folder texts
    python benchmarks/laws.py --texts texts --out runs.jsonl --seconds 500 --device cuda

Run number N is the same wherever it is made: a text, a piece from its start (90% to train on, 10%
for validation), a tokenizer, a shape, steps, dropout and rates, all drawn from N alone. Each line
of the results has them, the figures of the text (`nanogpt2.experiments.plan.figures`) and the
validation loss in nats a character. The same command goes on where it was cut off. With
`--device cpu` each worker has two cores of its own.
"""

import argparse
import math
import random
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import quality
import runs

from nanogpt2.config.config import get_config
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.experiments.plan.figures import read_figures
from nanogpt2.experiments.plan.pilot import run_pilot
from nanogpt2.experiments.plan.recipe import (
    BLOCKS,
    BYTES_PER_TOKEN,
    DROPOUTS,
    LEAST_BATCH,
    LEAST_STEPS,
    SIZES,
    TOKENS,
    VOCABULARIES,
    Choice,
    count_flops,
    make_values,
)
from nanogpt2.text.reading.corpus import read_corpus, split
from nanogpt2.tokens.bpe.words import find_cut
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.tokens.tokenizer import Tokenizer, train_tokenizer

JUDGED = 150_000  # tokens of validation, at most
BYTES = 100_000, 50_000_000  # of a piece
BPE = 0.4  # share of runs
SPEED = {"cpu": 0.6e11, "cuda": 0.5e14}  # operations a second, roughly
STEP = 0.004  # seconds of one at least
LONGEST = {"cpu": 90.0, "cuda": 20.0}  # seconds of a run, by this estimate
SHORTEST = 10  # times shorter
MOST_EPOCHS = 60
MOST_STEPS = 20_000


def draw(number: int, sizes: dict[str, int], device: str) -> tuple[str, int, Choice]:
    """Return text, bytes and choice of run `number`; `sizes` are the bytes of the texts.

    Any model is as likely as any other, and any time within a factor of ten.
    """
    random_numbers = random.Random(number)
    while True:
        text = random_numbers.choice(sorted(sizes))
        most = max(min(BYTES[1], sizes[text]), BYTES[0] * 1.01)
        size = round(log_uniform(random_numbers, BYTES[0], most))
        layers, width = random_numbers.choice(SIZES)
        block = random_numbers.choice(BLOCKS)
        batch = max(random_numbers.choice(TOKENS) // block, LEAST_BATCH)
        vocabularies = [v for v in VOCABULARIES if v * BYTES_PER_TOKEN < size]
        of_bpe = bool(vocabularies) and random_numbers.random() < BPE
        bpe = random_numbers.choice(vocabularies) if of_bpe else 0
        dropout = random_numbers.choice(DROPOUTS)
        seconds = log_uniform(random_numbers, LONGEST[device] / SHORTEST, LONGEST[device])
        flops = count_flops(width, layers, block, bpe or 100)
        steps = round(seconds / max(STEP, batch * block * flops / SPEED[device]))
        epochs = steps * batch * block / size  # of characters of one byte
        if LEAST_STEPS <= steps <= MOST_STEPS and epochs <= MOST_EPOCHS:
            return text, size, Choice(bpe, width, layers, block, batch, steps, dropout)


def log_uniform(random_numbers: random.Random, low: float, high: float) -> float:
    """Return a number whose logarithm is uniform."""
    return math.exp(random_numbers.uniform(math.log(low), math.log(high)))


@cache
def read_piece(path: Path, size: int) -> tuple[str, str]:
    """Return training and validation text of the first `size` bytes of a text."""
    text = read_corpus(path)[0].encode()[:size].decode("utf-8", "ignore")
    parts = split(text, val_fraction=0.1, test_fraction=0)
    return parts["train"], parts["val"]


def make_tokenizer(train: str, val: str, bpe: int) -> Tokenizer:
    """Return characters, or a bpe of so many tokens."""
    if not bpe:
        return train_tokenizer("char", [train, val], vocab_size=0)
    return train_tokenizer("bpe", [train[: find_cut(train) or None]], vocab_size=bpe)


@dataclass(frozen=True)
class Job:
    """A run by its number, on the texts of a folder."""

    number: int
    folder: Path
    device: str
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The number, by which the line is found."""
        return str(self.number)

    def __str__(self) -> str:
        return f"run {self.number}"


@cache
def read_sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each text."""
    return {path.stem: path.stat().st_size for path in sorted(folder.glob("*.txt"))}


def run_job(job: Job) -> dict[str, Any]:
    """Train, evaluate, and return the line of a run."""
    number, device = job.number, job.device
    name, size, choice = draw(number, read_sizes(job.folder), device)
    train, val = read_piece(job.folder / f"{name}.txt", size)
    tokenizer = make_tokenizer(train, val, choice.bpe)
    values = make_values(choice) | {"vocab_size": tokenizer.size, "seed": number}
    config = get_config({**values, "device": device})
    tokens, held_out = tokenizer.encode(train), tokenizer.encode(val)
    began = time.perf_counter()
    stepper = quality.train(config, TokenDataset(tokens, config.block_size))
    seconds = time.perf_counter() - began
    model = stepper.model
    totals = evaluate_tokens(model, held_out, tokenizer, batch_size=64, max_tokens=JUDGED).totals
    stepper.release()
    return {
        "text": name,
        "bytes": size,
        **vars(choice),
        "vocab_size": tokenizer.size,
        "train_tokens": len(tokens),
        "loss": totals.nats / totals.tokens * len(held_out) / len(val),
        "parameters": model.count_parameters(),
        "seconds": round(seconds, 2),
        "machine": runs.describe_machine(stepper.device),
        "figures": read_figures(train, val),
        "pilot": run_pilot(train, val, device=device),
    }


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True, help="a folder of .txt files")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--first-core", type=int, default=0, help="of the workers on CPUs")
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--runs", type=int, default=1000, help="how many at most")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no run after these")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a run")
    return parser.parse_args()


def main() -> None:
    """Make runs until the time is over."""
    options = parse_arguments()
    last = options.first + options.runs
    failed = runs.run_all(
        [Job(number, options.texts, options.device) for number in range(options.first, last)],
        run_job,
        options.out,
        workers=options.workers,
        device=options.device,
        first_core=options.first_core if options.device == "cpu" else None,
        seconds=options.seconds,
    )
    print(f"{len(runs.read_rows(options.out))} runs in {options.out}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
