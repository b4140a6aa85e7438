"""What it gives to keep memory that is freed: steps of training with and without, in turn.

    python benchmarks/heap.py
    python benchmarks/heap.py --preset nano --pairs 5
    python benchmarks/heap.py -S vocab_size 4096 -S block_size 256

Each side is a process of its own, which trains the shape of params.yaml, or of a preset, on random
tokens on the CPU, and tells the median of its steps and how many pages the system gave it for one.
The figures are medians over pairs, and the ratio that of the pairs' ratios.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import click
import torch
from project import ROOT, environment

from nanogpt2.config import yaml12
from nanogpt2.config.config import get_config, read_values
from nanogpt2.experiments.plan.timing import random_tokens
from nanogpt2.model.gpt import GPT
from nanogpt2.train import step as training

Settings = tuple[tuple[str, str], ...]
SIDES = "given back", "kept"
WARM_UP = 4
BYTES_PER_PAGE = resource.getpagesize()


def train(preset: str | None, settings: Settings, steps: int, *, keep: bool) -> dict[str, Any]:
    """Return the median milliseconds of a step, and the megabytes that the system gave for it."""
    if not keep:
        vars(training)["keep_memory"] = lambda: None
    shape = preset or read_values(ROOT / "params.yaml")[1]
    changes = {key: yaml12.parse(f"{key}: {value}", name="-S")[key] for key, value in settings}
    config = get_config(shape, **changes, device="cpu", max_iters=WARM_UP + steps)
    stepper, dataset = training.Stepper(GPT(config), config), random_tokens(config)
    spent, before = list[float](), 0
    for number in range(WARM_UP + steps):
        if number == WARM_UP:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        began = time.perf_counter()
        stepper.step(dataset, number)
        spent.append(time.perf_counter() - began)
    pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return {
        "step": 1e3 * statistics.median(spent[WARM_UP:]),
        "asked": pages * BYTES_PER_PAGE / steps / 1e6,
        "most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


@click.command()
@click.option("--preset", help="Instead of params.yaml.")
@click.option("-S", "settings", multiple=True, type=(str, str), help="A key and its value.")
@click.option("--steps", default=80, show_default=True)
@click.option("--pairs", default=5, show_default=True)
@click.option("--side", type=click.Choice(SIDES), hidden=True)
def main(preset: str | None, settings: Settings, steps: int, pairs: int, side: str | None) -> None:
    """Compare both sides."""
    if side:
        click.echo(json.dumps(train(preset, settings, steps, keep=side == "kept")))
        return
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for _ in range(pairs):
        for name in SIDES:
            command = [sys.executable, __file__, "--side", name, "--steps", str(steps)]
            command += ["--preset", preset] if preset else []
            command += [word for setting in settings for word in ("-S", *setting)]
            done = subprocess.run(
                command, env=environment(), capture_output=True, text=True, check=True
            )
            rows[name].append(json.loads(done.stdout.splitlines()[-1]))
    click.echo(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {pairs} pairs")
    for name, own in rows.items():
        each = " ".join(f"{row['step']:.1f}" for row in own)
        asked, most = (statistics.median(row[key] for row in own) for key in ("asked", "most"))
        click.echo(
            f"{name}: {statistics.median(row['step'] for row in own):.1f} ms a step ({each}),"
            f" {asked:.1f} MB asked for, {most:,.0f} MB at most"
        )
    ratios = [a["step"] / b["step"] for a, b in zip(*rows.values(), strict=True)]
    click.echo(f"kept is {statistics.median(ratios):.2f} times as fast")


if __name__ == "__main__":
    main()
