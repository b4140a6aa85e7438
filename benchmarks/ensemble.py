"""What an ensemble costs: seconds of 2 and 4 models, over those of one times their number.

    python benchmarks/ensemble.py                    # CPU
    python benchmarks/ensemble.py --device cuda

One model and the ensembles take turns, with random weights of the shape of a preset; medians.
Evaluation reads 64 windows of block_size, generation goes on from one token to a full block.
"""

import statistics
import time
from collections.abc import Callable

import click
import numpy as np
import torch

from nanogpt2.config.config import get_config
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.ensemble.decoding import prepare
from nanogpt2.decode.ensemble.ensemble import Ensemble, Model
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.generate import generate
from nanogpt2.tokens.tokenizer import ByteTokenizer

SIZES = (1, 2, 4)


def evaluating(model: Model) -> Callable[[], object]:
    """Return what evaluates `model` on 64 windows."""
    size = 64 * model.config.block_size + 1
    tokens = np.random.default_rng(0).integers(256, size=size).astype(np.uint16)
    return lambda: evaluate_tokens(model, tokens, ByteTokenizer(), batch_size=32)


def generating(model: Model, rows: int) -> Callable[[], object]:
    """Return what draws texts with `model`; its weights are packed once, which is not timed."""
    idx = torch.zeros(rows, 1, dtype=torch.long)
    make, count = prepare(model), model.config.block_size - 1
    controls = Controls(temperature=0.8)
    return lambda: generate(model, idx, count, controls=controls, seed=1, make_decoder=make)


def seconds(work: Callable[[], object]) -> float:
    """Return how long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@click.command()
@click.option("--device", default="cpu")
@click.option("--repeats", default=5)
@click.option("--presets", default="nano,small")
def main(device: str, repeats: int, presets: str) -> None:
    """Print the seconds of each size, and their ratio to one model's times the size."""
    for preset in presets.split(","):
        models = [GPT(get_config(preset, seed=n)).to(device).eval() for n in range(max(SIZES))]
        ensembles: dict[int, Model] = {n: Ensemble(models[:n]) for n in SIZES[1:]} | {1: models[0]}
        for name, start in (
            ("evaluate", evaluating),
            ("generate, 1 sample", lambda model: generating(model, 1)),
            ("generate, 32 samples", lambda model: generating(model, 32)),
        ):
            works = {n: start(ensembles[n]) for n in SIZES}
            taken: dict[int, list[float]] = {n: [] for n in SIZES}
            for repeat in range(repeats + 1):
                for n, work in works.items():
                    took = seconds(work)
                    if repeat:  # the first compiles and warms up
                        taken[n].append(took)
            medians = {n: statistics.median(each) for n, each in taken.items()}
            shown = (f"{n}: {s:.3f} s ({s / n / medians[1]:.2f})" for n, s in medians.items())
            print(f"{preset:6} {name:20} {', '.join(shown)}", flush=True)


if __name__ == "__main__":
    main()
