"""Training in eight bits beside bfloat16: time of a step, and the loss after some steps.

    python benchmarks/fp8.py --text FILE                         # the width of GPT-2 XL
    python benchmarks/fp8.py --text FILE --width 768 --batch 64  # GPT-2 124M

Both sides have the same weights, batches and rates, GPT-2 with AdamW on characters, and a head
of 50304 rows. Blocks of steps are timed in turn while both train; the losses are the mean of the
last 20 steps.
"""

import statistics
import time
from pathlib import Path

import click
import torch

from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.tokens.tokenizer import CharTokenizer
from nanogpt2.train.step import Stepper

BLOCK = 10  # steps that are timed together
WARM_UP = 20
LAST = 20


def make_stepper(config: Config) -> Stepper:
    """Return a model under training."""
    model = GPT(config)
    stepper = Stepper(model, config)
    model.train()
    return stepper


def time_block(stepper: Stepper, data: TokenDataset, first: int) -> tuple[float, list[float]]:
    """Return the seconds of a step, and the losses of the block."""
    stepper.synchronize()
    start = time.perf_counter()
    figures = [stepper.step(data, step).figures[0] for step in range(first, first + BLOCK)]
    stepper.synchronize()
    return (time.perf_counter() - start) / BLOCK, torch.stack(figures).tolist()


@click.command()
@click.option("--text", type=Path, required=True, help="A .txt file to train on.")
@click.option("--width", default=1600, show_default=True)
@click.option("--layers", default=12, show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--steps", default=500, show_default=True)
@click.option("--learning-rate", default=3e-4, show_default=True)
@click.option("--seed", default=1337, show_default=True)
def main(
    text: Path, width: int, layers: int, batch: int, steps: int, learning_rate: float, seed: int
) -> None:
    """Print both times, their ratio, and both losses."""
    words = text.read_text(encoding="utf-8")
    shape = {"n_embd": width, "n_layer": layers, "n_head": width // 64, "block_size": 1024}
    schedule = {"seed": seed, "max_iters": steps, "warmup_iters": 100, "beta2": 0.95}
    steppers, data = {}, None
    for precision in ("bf16", "fp8"):
        config = get_config(
            {**shape, **schedule, "learning_rate": learning_rate, "bias": False, "dropout": 0.0,
             "vocab_size": 50304, "batch_size": batch, "device": "cuda", "deterministic": False,
             "precision": precision}
        )  # fmt: skip
        steppers[precision] = make_stepper(config)
        data = TokenDataset(CharTokenizer.train(words).encode(words), config.block_size)
    assert data is not None
    times: dict[str, list[float]] = {name: [] for name in steppers}
    losses: dict[str, list[float]] = {name: [] for name in steppers}
    for first in range(0, steps, BLOCK):
        for name in sorted(steppers, reverse=first // BLOCK % 2 == 1):
            seconds, found = time_block(steppers[name], data, first)
            losses[name] += found
            if first >= WARM_UP:
                times[name].append(seconds)
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    print(
        f"{layers} layers of {width}, {batch} x 1024 tokens, medians of {len(times['fp8'])} pairs"
    )
    for name, seconds_of in times.items():
        seconds, loss = statistics.median(seconds_of), statistics.fmean(losses[name][-LAST:])
        print(
            f"{name}: {seconds * 1e3:.1f} ms a step, {batch * 1024 / seconds:,.0f} tokens/s;"
            f" loss {loss:.4f} after {steps} steps"
        )
    ratios = [b / f for b, f in zip(times["bf16"], times["fp8"], strict=True)]
    ends = [statistics.fmean(losses[name][-LAST:]) for name in ("bf16", "fp8")]
    print(f"fp8: {statistics.median(ratios):.3f} times as fast; loss {ends[1] / ends[0] - 1:+.2%}")
    for first in range(0, steps, 5 * LAST):
        means = [statistics.fmean(losses[name][first : first + LAST]) for name in steppers]
        print(f"from step {first}: " + ", ".join(f"{mean:.4f}" for mean in means))


if __name__ == "__main__":
    main()
