"""How often a branch that changes nothing fails the check, and which losses of quality it sees.

    python benchmarks/chance.py --seeds 40 --out chance.json

Real trainings on the built-in plays: the configuration of params.yaml, by default much smaller,
with as many seeds, and with a fifth as many each at lower learning rates. Then, many times: some
of the seeds at random are what `seeds` measured the noise with, and of the others one is the base
and one the head of a branch, as `python -m nanogpt2 check` judges them. The head of a branch that
changes something is a run at a lower rate.
"""

import argparse
import json
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nanogpt2.config.config import Config, get_config, read_values
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.evaluate.metrics import summarise
from nanogpt2.experiments.gate.judge import Side, judge_figure
from nanogpt2.experiments.gate.noise import Noise
from nanogpt2.experiments.gate.thresholds import NOISE, Threshold
from nanogpt2.model.gpt import GPT
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.text.reading.shakespeare import shakespeare_text
from nanogpt2.tokens.dataset import TokenDataset, load_prepared_tokenizer, load_tokens
from nanogpt2.train.step import Stepper

PARAMS = Path(__file__).parents[1] / "params.yaml"
TINY = {"block_size": 32, "n_layer": 2, "n_head": 2, "n_embd": 32, "batch_size": 16}
TINY_STEPS, TINY_TEXT = 150, 600_000  # steps, characters
RATES = ("learning_rate", "muon_learning_rate")
FRACTIONS = (1.0, 0.9, 0.7, 0.5, 0.3)  # of these rates
FILE, KEY = "metrics/eval.json", "val.loss"
THRESHOLD = Threshold(FILE, KEY, lower_is_better=True, allowed=NOISE, accept=None)
DRAWS = 20_000


def train_all(options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the losses on the validation text of all seeds, by the fraction of the rates."""
    values = read_values(PARAMS)[1] | {"device": options.device}
    if not options.default:
        values |= TINY | {"max_iters": TINY_STEPS, "warmup_iters": 20}
    losses: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as aside:
        text = Path(aside, "text.txt")
        text.write_text(shakespeare_text()[: None if options.default else TINY_TEXT])
        data = Path(aside, "data")
        prepare(text, data, tokenizer="char", vocab_size=256, fractions=(0.1, 0.05))
        for fraction in FRACTIONS:
            rates = {key: values[key] * fraction for key in RATES}
            count = options.seeds if fraction == 1 else options.seeds // 5
            first = 1 if fraction == 1 else 1001  # seeds of their own
            found = losses.setdefault(str(fraction), [])
            for seed in range(first, first + count):
                found.append(train_one(get_config({**values, **rates, "seed": seed}), data))
            print(f"rates x {fraction}: {describe(found)}", flush=True)
    return losses


def read_losses(path: Path) -> dict[str, list[float]]:
    """Return the losses of an earlier run, or those of ci/noise.json."""
    found: dict[str, Any] = json.loads(path.read_text())
    return {"1.0": found["figures"][FILE][KEY]} if "figures" in found else found


def train_one(config: Config, data: Path) -> float:
    """Return the loss on the whole validation text, as metrics/eval.json has it."""
    tokens = np.array(load_tokens(data, "train"))
    dataset = TokenDataset(tokens, config.block_size)
    stepper = Stepper(GPT(config), config)
    stepper.model.train()
    for step in range(config.max_iters):
        stepper.step(dataset, step)
    stepper.ema.keep()
    stepper.synchronize()
    held_out, tokenizer = load_tokens(data, "val"), load_prepared_tokenizer(data)
    totals = evaluate_tokens(stepper.model, held_out, tokenizer, batch_size=64).totals
    return round(summarise(totals)["loss"], 6)


def describe(losses: list[float]) -> str:
    """Return number, mean and standard deviation."""
    spread = statistics.stdev(losses)
    return f"{len(losses)} seeds, mean {statistics.fmean(losses):.4f}, deviation {spread:.4f}"


def share_failing(
    same: list[float], others: list[float] | None, *, seeds: int, chance: float
) -> float:
    """Return the share of branches that fail, by noise of so many `seeds`.

    `others` are what the branch's runs may come to; None for those of `same`.
    """
    draw = random.Random(0)
    failed = 0
    for _ in range(DRAWS):
        *measured, base, head = draw.sample(same, seeds + 2)
        if others is not None:
            head = draw.choice(others)
        noise = Noise("noise.json", [*range(seeds)], {}, {FILE: {KEY: measured}})
        row = judge_figure(
            THRESHOLD, side(base), side(head), noise=lambda noise=noise: noise,  # type: ignore[misc]
            chance=chance, accepts=True,
        )  # fmt: skip
        failed += row.fails
    return failed / DRAWS


def side(loss: float) -> Side:
    """Return a run that has this loss."""
    metrics: dict[str, Any] = {FILE: {"val": {"loss": loss}}}
    return Side(metrics, {})


def main() -> None:
    """Train, or read what was trained, and print the shares."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--default", action="store_true", help="params.yaml as it is, all plays")
    parser.add_argument("--device", choices=["cpu", "cuda", "mps"], default="cpu")
    parser.add_argument("--out", type=Path, default=Path("chance.json"))
    parser.add_argument("--figures", type=Path, help="of an earlier run, or ci/noise.json")
    options = parser.parse_args()
    if options.figures:
        losses = read_losses(options.figures)
    else:
        print(f"torch {torch.__version__}, {options.device}")
        losses = train_all(options)
        options.out.write_text(json.dumps(losses))
    same = losses.pop("1.0")
    print(f"rates x 1: {describe(same)}; {DRAWS} draws for each cell")
    heads = [f"rates x {name}: {statistics.fmean(each):.4f}" for name, each in losses.items()]
    print("| chance | seeds of the noise | nothing changed | " + " | ".join(heads) + " |")
    print("|---" * (3 + len(heads)) + "|")
    for chance in (0.01, 0.04):
        for seeds in (3, 5, 10):
            shares = [
                share_failing(same, others, seeds=seeds, chance=chance)
                for others in (None, *losses.values())
            ]
            print(f"| {chance} | {seeds} | " + " | ".join(f"{x:.1%}" for x in shares) + " |")


if __name__ == "__main__":
    main()
