"""Shards: the same bytes on 1, 2 and 4 processes, also of runs that are killed, and what they cost.

    python benchmarks/same_bytes.py --kills 10
    python benchmarks/same_bytes.py --shape params.yaml --processes 1,2 --shards 2
    python benchmarks/same_bytes.py --cost small
    python benchmarks/same_bytes.py --device cuda --processes 1,2 --shape base
    python benchmarks/same_bytes.py --device cuda --cost base --batch 64

Each run is `python -m stages.train`, with shards and without; its weights' SHA-256 is printed, and
the tokens a second of its steps. With `--kills` a run with shards is killed with -9 at a random
moment, a process of it drawn at random, and goes on in another number of processes, to be killed
again or to come to its end. The exit status is 1 where two SHA-256 with shards differ.

`--cost` trains a preset in this process on random tokens, with shards, and with as many passes that
are only accumulated, a step of each in turn, and prints the medians, and those of the ratios of
pairs. On a CPU one thread computes, and only its own time counts, not that of other work.
"""

import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import torch
import yaml
from project import environment

from nanogpt2.config.config import get_config
from nanogpt2.model.checkpoint import hash_weights, load_tensors
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.train.step import Stepper

TEXT = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate.\n" * 200
TINY = {
    **{"vocab_size": 256, "block_size": 32, "n_layer": 3, "n_head": 2, "n_embd": 64},
    **{"dropout": 0.1, "batch_size": 16, "architecture": "qwen3", "optimizer": "normuon"},
    **{"mixed_precision": True, "learning_rate": 8e-3},
}
SHORT = {"corpus": "text.txt", "eval_iters": 4, "checkpoint_interval": 3, "find_copies": False}
WARM_UP = 5  # steps


class Run:
    """Training in a folder, with and without shards, in any number of processes."""

    def __init__(self, folder: Path, config: dict[str, Any], processes: list[int]) -> None:
        self.folder = folder
        self.shards = config["shards"]
        self.env = environment()
        text = TEXT * (1 + 30 * config["block_size"] // len(TEXT))
        (folder / "text.txt").write_text(text, encoding="utf-8")
        self.config = config
        self.start("prepare", processes[0]).wait()

    def start(
        self, stage: str, processes: int, shards: int | None = None
    ) -> "subprocess.Popen[bytes]":
        own = {"num_processes": processes, "shards": shards or self.shards}
        (self.folder / "my.yaml").write_text(yaml.safe_dump(self.config | own), encoding="utf-8")
        command = [sys.executable, "-m", f"stages.{stage}", "--config", "my.yaml"]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen(command, cwd=self.folder, env=self.env, **quiet)

    def weights(self) -> str:
        """Return the SHA-256 of the weights that the run ended with; remove what it wrote."""
        content = load_tensors(self.folder / "checkpoints/final_model.pt")
        found = hash_weights(content["model_state_dict"])
        for name in ("checkpoints", "metrics", "plots", ".resume", "logs"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        return found

    def to_the_end(self, processes: int, shards: int | None = None) -> str:
        """Let it run to its end; return the SHA-256 of its weights, and tell of it."""
        if self.start("train", processes, shards).wait():
            raise SystemExit(f"training in {processes} processes failed")
        report = json.loads((self.folder / "logs/train.json").read_bytes())
        weights = self.weights()
        click.echo(
            f"shards {shards or self.shards}, processes {processes}: {weights[:32]},"
            f" {report['tokens_per_second']:,.0f} tokens/s"
        )
        return weights

    def kill(self, processes: int, draw: random.Random) -> str | None:
        """Kill one of its processes at a random moment after some new states; say which.

        None where it came to its end before.
        """
        process = self.start("train", processes)
        for _ in range(draw.randint(1, 12)):
            before = self.states()
            while process.poll() is None and not self.states() - before:
                time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.1))
        with suppress(psutil.NoSuchProcess):
            ranks = psutil.Process(process.pid).children() or [psutil.Process(process.pid)]
            victim = draw.randrange(len(ranks))
            ranks[victim].send_signal(signal.SIGKILL)
        if process.wait() == 0:
            return None
        return f"process {victim + 1} of {processes} killed, the newest state {self.newest()}"

    def states(self) -> set[str]:
        return {path.name for path in self.folder.glob(".resume/*/*-*.pt")}

    def newest(self) -> int:
        return max(int(name.split("-")[0]) for name in self.states())


def compare(config: dict[str, Any], processes: list[int], kills: int, seed: int) -> bool:
    """Print the SHA-256 of each run; return whether all are the same."""
    draw, found = random.Random(seed), set[str]()
    with tempfile.TemporaryDirectory() as name:
        run = Run(Path(name), config, processes)
        for count in processes:
            run.to_the_end(count, shards=1)
            found.add(run.to_the_end(count))
        killed, told = 0, list[str]()
        while killed < kills or told:
            said = run.kill(draw.choice(processes), draw) if killed < kills else None
            if said:
                killed += 1
                told.append(said)
                continue
            for line in told:
                click.echo(line)
            told.clear()
            if killed < kills:  # it came to its end before it was killed
                found.add(weights := run.weights())
                click.echo(f"then to the end: {weights[:32]}")
            else:
                found.add(run.to_the_end(draw.choice(processes)))
    click.echo(f"{len(found)} SHA-256 with shards, {killed} kills")
    return len(found) == 1


def cost(preset: str, device: str, batch: int, counts: list[int], rounds: int) -> None:
    """Print what a step takes with each number of shards, and of passes without shards, in turn."""
    steppers = {}
    for count in counts:
        ways = {"shards": (batch, count), "passes": (batch // count, 1)}
        for name, (size, shards) in ways.items():
            own = {"batch_size": size, "gradient_accumulation_steps": batch // size}
            own |= {"shards": shards, "max_iters": 10**6}
            config = get_config(preset, device=device, **own)
            steppers[f"{count} {name}"] = Stepper(GPT(config), config)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, 1_000_000).astype(np.uint16)
    data = TokenDataset(tokens, config.block_size)
    clock = time.process_time if device == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in steppers}
    for step in range(WARM_UP + rounds):
        for name, stepper in steppers.items():
            start = clock()
            stepper.step(data, step)
            stepper.synchronize()
            seconds[name].append(clock() - start)
    first = seconds[next(iter(steppers))]
    for name, stepper in steppers.items():
        pairs = list(zip(seconds[name], first, strict=True))[WARM_UP:]
        click.echo(
            f"{preset}, batch {batch}, {stepper.dtype}, {name}:"
            f" {statistics.median(own for own, _ in pairs) * 1e3:.1f} ms a step,"
            f" {statistics.median(own / other for own, other in pairs):.3f} of one"
        )


def numbers(_: object, __: object, value: str) -> list[int]:
    return [int(number) for number in value.split(",")]


@click.command()
@click.option("--device", default="cpu", show_default=True)
@click.option("--processes", default="1,2,4", show_default=True, callback=numbers)
@click.option("--shape", default="tiny", show_default=True, help="Tiny, a preset or a YAML file.")
@click.option("--steps", default=150, show_default=True)
@click.option("--shards", default=4, show_default=True, help="Of the runs that are compared.")
@click.option("--kills", default=0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--cost", "preset", help="A preset: what its steps take with more shards.")
@click.option("--batch", default=16, show_default=True, help="Sequences of a step, for --cost.")
@click.option("--counts", default="1,2,4", show_default=True, callback=numbers)
@click.option("--rounds", default=40, show_default=True)
def main(
    device: str,
    processes: list[int],
    shape: str,
    steps: int,
    shards: int,
    kills: int,
    seed: int,
    preset: str | None,
    batch: int,
    counts: list[int],
    rounds: int,
) -> None:
    """Compare the bytes of runs, or with `--cost` the time of their steps."""
    if preset:
        torch.set_num_threads(1)
        click.echo(f"torch {torch.__version__}, {device}")
        cost(preset, device, batch, counts, rounds)
        return
    own = {**SHORT, "device": device, "shards": shards, "max_iters": steps}
    own |= {"eval_interval": max(1, steps // 5)}
    given = TINY if shape == "tiny" else get_config(shape).to_dict()
    config = get_config({**given, **own}).to_dict()
    values = {key: value for key, value in config.items() if value is not None}
    sys.exit(not compare(values, processes, kills, seed))


if __name__ == "__main__":
    main()
