"""Runs of random shapes on pieces of many texts: what `nanogpt2.experiments.plan` was fitted to.

    python benchmarks/texts.py --folder texts
    python benchmarks/laws.py --texts texts --out runs.jsonl --seconds 500 --device cuda

Run number N is the same wherever it is made: a piece of a text (its first 100 kB, 200 kB, ... up to
all of it; 90% to train on, 10% for validation), a tokenizer, a shape, steps and dropout, all drawn
from N alone. Its line has them and the validation loss in nats a character, and the losses of the
same run with half, a quarter and a tenth of the steps, as a plan rehearses it; `own` has those of
all four on the training text. Lines of pieces have their
figures (`nanogpt2.experiments.plan.figures`) and the pilot's losses. With `--best-of 16` a run is
the one of 16 shapes of the same cost that the law takes for the best, so that more is known of such
runs as plans have. The same command goes on where it was cut off. With `--device cpu` each worker
has two cores of its own; on a GPU several workers share it well (NVIDIA's MPS).
"""

import argparse
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import quality
import runs
import torch

from nanogpt2.config.config import Config, get_config
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.experiments.plan.choose import CAUTION
from nanogpt2.experiments.plan.figures import read_figures
from nanogpt2.experiments.plan.laws import PILOT, read_law
from nanogpt2.experiments.plan.pilot import run_pilot
from nanogpt2.experiments.plan.plan import LEARNT_FROM
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
from nanogpt2.tokens.bpe.arrays import TokenArray
from nanogpt2.tokens.bpe.words import find_cut
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.tokens.tokenizer import Tokenizer, train_tokenizer

JUDGED = 150_000  # tokens of validation, at most
OWN_JUDGED = 60_000  # of training
SMALLEST, LARGEST = 100_000, 51_200_000  # bytes of a piece
BPE = 0.4  # share of runs
FLOPS = {"cpu": (0.5e12, 5e12), "cuda": (0.7e12, 2e14)}  # operations of a run
STEP_FLOPS = {"cpu": 0.2e9, "cuda": 2.5e10}  # what a step takes besides, put as operations
MOST_EPOCHS = 60
MOST_STEPS = 10_000
STARTS = 2, 4, 10  # times fewer steps
LEAST_START = 60  # steps of one


def draw(number: int, pieces: Sequence["Piece"], device: str) -> tuple["Piece", Choice]:
    """Return piece and choice of run `number`.

    Any model is as likely as any other, and any cost within `FLOPS`.
    """
    random_numbers = random.Random(number)
    least, most = FLOPS[device]
    while True:
        piece = random_numbers.choice(pieces)
        shape = draw_shape(random_numbers)
        vocabularies = [v for v in VOCABULARIES if v * BYTES_PER_TOKEN < piece.size]
        of_bpe = bool(vocabularies) and random_numbers.random() < BPE
        bpe = random_numbers.choice(vocabularies) if of_bpe else 0
        dropout = random_numbers.choice(DROPOUTS)
        cost = math.exp(random_numbers.uniform(math.log(least), math.log(most)))
        choice = with_steps(Choice(**shape, bpe=bpe, steps=0, dropout=dropout), cost, device)
        if fits(choice, piece):
            return piece, choice


def draw_shape(random_numbers: random.Random) -> dict[str, int]:
    """Return layers, width, block and batch."""
    layers, width = random_numbers.choice(SIZES)
    block = random_numbers.choice(BLOCKS)
    batch = max(random_numbers.choice(TOKENS) // block, LEAST_BATCH)
    return {"layers": layers, "width": width, "block": block, "batch": batch}


def step_cost(choice: Choice, device: str) -> float:
    """Return the operations of a step."""
    flops = count_flops(choice.width, choice.layers, choice.block, choice.bpe or 100)
    return float(choice.tokens * flops + STEP_FLOPS[device])


def with_steps(choice: Choice, cost: float, device: str) -> Choice:
    """Return `choice` with as many steps as `cost` operations are."""
    return replace(choice, steps=round(cost / step_cost(choice, device)))


def fits(choice: Choice, piece: "Piece") -> bool:
    """Whether a run is neither too short nor too long."""
    epochs = choice.steps * choice.tokens / piece.size  # of characters of one byte
    return LEAST_STEPS <= choice.steps <= MOST_STEPS and epochs <= MOST_EPOCHS


@dataclass(frozen=True)
class Piece:
    """The first `size` bytes of a text: a job that looks at it."""

    path: Path
    size: int
    device: str
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Text and size, by which the line is found."""
        return f"{self.path.stem}-{self.size}"

    def __str__(self) -> str:
        return f"the figures of {self.name}"

    def read(self) -> tuple[str, str]:
        """Return training and validation text."""
        text = read_corpus(self.path)[0].encode()[: self.size].decode("utf-8", "ignore")
        parts = split(text, val_fraction=0.1, test_fraction=0)
        return parts["train"], parts["val"]

    def do(self) -> dict[str, Any]:
        """Return the line: figures, and the pilot's losses."""
        train, val = self.read()
        pilot = run_pilot(train, val, device=self.device)
        figures = read_figures(train, val)
        return {"text": self.path.stem, "figures": figures, "pilot": pilot, "loss": pilot[-1]}


def list_pieces(folder: Path, device: str) -> list[Piece]:
    """Return the pieces of all texts of a folder."""
    pieces = []
    for path in sorted(folder.glob("*.txt")):
        most, size = min(path.stat().st_size, LARGEST), SMALLEST
        while size < 0.75 * most:
            pieces.append(Piece(path, size, device))
            size *= 2
        pieces.append(Piece(path, most, device))
    return pieces


def make_tokenizer(train: str, val: str, bpe: int) -> Tokenizer:
    """Return characters, or a bpe of so many tokens."""
    if not bpe:
        return train_tokenizer("char", [train, val], vocab_size=0)
    start = train[:LEARNT_FROM]
    return train_tokenizer("bpe", [start[: find_cut(start) or None]], vocab_size=bpe)


def train_and_judge(
    config: Config, tokenizer: Tokenizer, tokens: TokenArray, *judged: tuple[TokenArray, int]
) -> list[float]:
    """Train, and return the nats of each of `judged`, from those of so many of its tokens."""
    stepper = quality.train(config, TokenDataset(tokens, config.block_size))
    nats = []
    for part, count in judged:
        totals = evaluate_tokens(
            stepper.model, part, tokenizer, batch_size=64, max_tokens=count
        ).totals
        nats.append(totals.nats / totals.tokens * len(part))
    stepper.release()
    return nats


@dataclass(frozen=True)
class Run:
    """A run by its number."""

    number: int
    piece: Piece
    choice: Choice
    lines: Path  # that have the piece's
    best_of: int = 1

    @property
    def name(self) -> str:
        """The number, by which the line is found."""
        return str(self.number)

    @property
    def needs(self) -> tuple[str, ...]:
        """The piece's line."""
        return (self.piece.name,)

    def __str__(self) -> str:
        return f"run {self.number}"

    def do(self) -> dict[str, Any]:
        """Train, evaluate, and return the line."""
        train, val = self.piece.read()
        tokenizer = make_tokenizer(train, val, self.choice.bpe)
        tokens, held_out = tokenizer.encode(train), tokenizer.encode(val)
        sizes = {"vocab_size": tokenizer.size, "train_tokens": len(tokens)}
        choice = self.choose(sizes)

        def reach(steps: int) -> tuple[float, float]:
            values = make_values(replace(choice, steps=steps)) | {"seed": self.number}
            values |= {"vocab_size": tokenizer.size, "device": self.piece.device}
            judged = (held_out, JUDGED), (tokens, OWN_JUDGED)
            loss, own = train_and_judge(get_config(values), tokenizer, tokens, *judged)
            return loss / len(val), own / len(train)

        began = time.perf_counter()
        loss, own = reach(choice.steps)
        seconds = time.perf_counter() - began
        starts = [steps for n in STARTS if (steps := choice.steps // n) >= LEAST_START]
        reached = [reach(steps) for steps in starts]
        return {
            "piece": self.piece.name,
            "bytes": self.piece.size,
            **vars(choice),
            **sizes,
            "loss": loss,
            "starts": [[steps, each[0]] for steps, each in zip(starts, reached, strict=True)],
            "own": [own, *(each[1] for each in reached)],
            "seconds": round(seconds, 2),
            "machine": runs.describe_machine(torch.device(self.piece.device)),
        }

    def choose(self, sizes: dict[str, int]) -> Choice:
        """Return the choice that the law takes for the best, of this one and others like it."""
        device, random_numbers = self.piece.device, random.Random(f"{self.number} others")
        cost, choices = self.choice.steps * step_cost(self.choice, device), [self.choice]
        for _ in range(10 * (self.best_of - 1)):
            shape, dropout = draw_shape(random_numbers), random_numbers.choice(DROPOUTS)
            choice = replace(self.choice, **shape, dropout=dropout)
            choice = with_steps(choice, cost, device)
            if fits(choice, self.piece) and len(choices) < self.best_of:
                choices.append(choice)
        if len(choices) == 1:
            return self.choice
        lines = {line["name"]: line for line in runs.read_rows(self.lines)}
        piece = lines[self.piece.name]
        columns = sizes | piece["figures"] | dict(zip(PILOT, piece["pilot"], strict=True))
        columns |= {name: np.array([vars(c)[name] for c in choices]) for name in vars(choices[0])}
        losses, spreads = read_law().predict(columns)
        return choices[int(np.argmin(losses * (1 + CAUTION * spreads)))]


def do(job: Piece | Run) -> dict[str, Any]:
    """Return the line of a job."""
    return job.do()


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=Path, required=True, help="a folder of .txt files")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--first-core", type=int, default=0, help="of the workers on CPUs")
    parser.add_argument("--first", type=int, default=0, help="number of the first run")
    parser.add_argument("--runs", type=int, default=1000, help="how many at most")
    parser.add_argument("--best-of", type=int, default=1, help="shapes, by the law as it is")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no run after these")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, one a run")
    return parser.parse_args()


def main() -> None:
    """Make runs until the time is over."""
    options = parse_arguments()
    pieces = list_pieces(options.texts, options.device)
    numbers = range(options.first, options.first + options.runs)
    jobs = [
        Run(number, *draw(number, pieces, options.device), options.out, options.best_of)
        for number in numbers
    ]
    wanted = {job.piece.name: job.piece for job in jobs}
    # A run follows the pieces of its time, so that the first ones need not wait for all.
    ordered: list[Piece | Run] = []
    for job in jobs:
        if piece := wanted.pop(job.piece.name, None):
            ordered.append(piece)
        ordered.append(job)
    failed = runs.run_all(
        ordered,
        do,
        options.out,
        workers=options.workers,
        device=options.device,
        first_core=options.first_core if options.device == "cpu" else None,
        seconds=options.seconds,
    )
    print(f"{len(runs.read_rows(options.out))} lines in {options.out}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
