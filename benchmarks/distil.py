"""What following teachers costs: a step, separate passes of the teachers, and a step that follows.

python benchmarks/distil.py                                    # the default run, 1 and 4 teachers
python benchmarks/distil.py --device cuda --shape tinyshakespeare --teachers 4

In each round the three take turns, and the ratios are medians over rounds. The separate passes are
what anybody pays for the teachers' probabilities: their forward passes as evaluation has them, and
a softmax. With --cpu-time other work on the machine does not count (with OMP_NUM_THREADS=1).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.tokens.tokenizer import ByteTokenizer
from nanogpt2.train.distil.teachers import Teacher
from nanogpt2.train.step import Stepper

SHAPES: dict[str, dict[str, Any]] = {
    "default": {"vocab_size": 256, "block_size": 128, "n_layer": 4, "n_head": 4, "n_embd": 64}
    | {"architecture": "qwen3", "batch_size": 32, "optimizer": "muon"},
    "tinyshakespeare": {"vocab_size": 256, "block_size": 1024, "n_layer": 6, "n_head": 6}
    | {"n_embd": 384, "architecture": "modern", "batch_size": 16, "optimizer": "muon"},
    "gpt2": {"vocab_size": 50304, "block_size": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768}
    | {"architecture": "gpt2", "batch_size": 16, "optimizer": "adamw"},
}


def make_stepper(config: Config, teachers: list[Teacher]) -> Stepper:
    stepper = Stepper(GPT(config), config, teachers)
    stepper.model.train()
    return stepper


def passes(stepper: Stepper, models: list[GPT], dataset: TokenDataset) -> Callable[[int], None]:
    """Return what makes the logits of `models` on the batch of a step, as a step makes them."""

    def run(step: int) -> None:
        windows = stepper.batches.draw(dataset, stepper.windows_per_step, step)
        factors = [weight for model in models for weight in model.factors()]
        factors *= stepper.captures
        with torch.no_grad(), stepper.operators.cast_weights(factors, stepper.dtype):
            for idx, _ in stepper.batches.read(dataset, windows, stepper.micro_batch.size):
                with stepper.autocast():
                    for model in models:
                        model(idx).softmax(-1)

    return run


def measure(
    config: Config, count: int, *, rounds: int, steps: int, clock: Callable[[], float]
) -> None:
    rng = np.random.default_rng(0)
    dataset = TokenDataset(rng.integers(0, 256, 400_000).astype(np.uint16), config.block_size)
    teachers = [
        Teacher(str(seed), GPT(get_config(config, seed=seed)).eval(), ByteTokenizer(), "")
        for seed in range(count)
    ]
    for each in teachers:
        each.model.requires_grad_(False)
    plain, taught = make_stepper(config, []), make_stepper(config, teachers)
    models = [each.model for each in teachers]
    works: dict[str, Callable[[int], object]] = {
        "step": lambda step: plain.step(dataset, step),
        "passes": passes(plain, models, dataset),
        "distilling": lambda step: taught.step(dataset, step),
    }

    def seconds(work: Callable[[int], object], stepper: Stepper, steps: int) -> float:
        """Return the seconds of one step of `work`."""
        stepper.synchronize()
        start = clock()
        for step in range(steps):
            work(step)
        stepper.synchronize()
        return (clock() - start) / steps

    for work in works.values():
        seconds(work, plain, max(4, steps // 4))  # and the captures of a GPU
    table = [{n: seconds(work, plain, steps) for n, work in works.items()} for _ in range(rounds)]
    for name in works:
        print(f"  {name}: {1000 * statistics.median(row[name] for row in table):.2f} ms")
    both = [row["distilling"] / (row["step"] + row["passes"]) for row in table]
    alone = [row["distilling"] / row["step"] for row in table]
    print(
        f"  {count} teachers: {statistics.median(alone):.3f} times a step,"
        f" {statistics.median(both):.3f} times a step and the passes"
        f" ({min(both):.3f} to {max(both):.3f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--shape", choices=SHAPES, default="default")
    parser.add_argument("--teachers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    changes = {"device": options.device, "teacher_temperature": options.temperature}
    config = get_config(SHAPES[options.shape] | changes)
    print(f"{options.shape} on {options.device}, temperature {options.temperature:g}")
    for count in options.teachers:
        measure(config, count, rounds=options.rounds, steps=options.steps, clock=clock)


if __name__ == "__main__":
    main()
