"""Saves of unfinished runs: the pause that each makes, and what kills in the midst of them cost.

    python benchmarks/saves.py --shape base --device cuda
    python benchmarks/saves.py --shape base --device cuda --kills 10
    python benchmarks/saves.py --device cpu --kills 50

Three ways in turn: steps without a save, with saves that the run waits for (before), and with saves
in the background (after). A pause is the time from the end of a step to the end of the next one
beyond that of a usual step, by the device's clock; the share is what saves add to the time of all
steps, also of those beside which a state is written, as if there was one at every `--every` steps.
The best weights are part of each state.

`--kills` starts `python -m stages.train`, kills it with -9 while it writes a state, at a random
moment, starts it again to kill it again, and lets it come to its end now and then: the weights then
have the SHA-256 of those of an unbroken run, or the exit status is 1.
"""

import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import yaml
from project import environment

from nanogpt2.config.config import Config, get_config
from nanogpt2.model.checkpoint import hash_weights, load_tensors
from nanogpt2.model.gpt import GPT
from nanogpt2.report.stopwatch import Stopwatch
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.train.record import TrainingRecord
from nanogpt2.train.states import RunStates
from nanogpt2.train.trainer import Trainer

WARM_UP = 30  # steps, of which some are slow, and beside which memory is taken for copies
TINY = {
    **{"vocab_size": 256, "block_size": 32, "n_layer": 4, "n_head": 4, "n_embd": 256},
    **{"batch_size": 8, "max_iters": 60, "eval_interval": 20, "eval_iters": 2},
}
SHORT = {"max_iters": 60, "eval_interval": 30, "eval_iters": 2}  # a run of a large shape
TEXT = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate.\n"
PATIENCE = 0.001  # seconds between two looks for a state that is being written


def shape_of(name: str, device: str, **changes: Any) -> Config:
    """Return a preset, or the tiny shape, with what is equal in all of them."""
    given = TINY if name == "tiny" else get_config(name).to_dict()
    return get_config({**given, "device": device, **changes})


# --- The pause of a save, and the share of the time ---


class Clock:
    """Moments at which a device has come so far."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.moments: list[Any] = []

    def mark(self) -> None:
        """Note the moment when all that was asked so far is done."""
        if self.device.type != "cuda":
            self.moments.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        self.moments.append(event)

    def seconds(self) -> list[float]:
        """Return the time from each moment to the next."""
        if self.device.type != "cuda":
            return [end - start for start, end in pairwise(self.moments)]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1e3 for start, end in pairwise(self.moments)]


def time_run(
    trainer: Trainer, dataset: TokenDataset, steps: int, interval: int, save: str
) -> tuple[list[float], int]:
    """Return the seconds of each step of a run as `Trainer` does it, and the bytes of a state.

    `save` names a method of `RunStates`, or is empty.
    """
    stepper, record, losses = trainer.stepper, TrainingRecord(), trainer.losses
    with tempfile.TemporaryDirectory(dir=".") as folder:
        watch = Stopwatch()
        states = RunStates(Path(folder), stepper, (dataset, dataset), say=print, stopwatch=watch)
        clock, size = Clock(stepper.device), 0
        with states.locked():
            record.keep_best(trainer.model.state_dict())
            for step in range(WARM_UP + steps):
                if step == WARM_UP:
                    clock.mark()
                done = step - WARM_UP
                if save and done > 0 and done % interval == 0:
                    losses.read()
                    getattr(states, save)(record)
                losses.take(stepper.step(dataset, step))
                record.step += 1
                if step >= WARM_UP:
                    clock.mark()
                if save == "begin_save":
                    states.step_done(record)
            seconds = clock.seconds()
            stepper.synchronize()
        if states.files and (paths := states.files.paths()):
            size = paths[-1].stat().st_size
    return seconds, size


def compare(config: Config, saves: int, interval: int, every: int, repeats: int) -> Iterator[str]:
    """Yield a line for each way of saving, and one for what they have to do with each other."""
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, 2_000_000).astype(np.uint16)
    dataset = TokenDataset(tokens, config.block_size)
    trainer = Trainer(GPT(config), config)
    steps = (saves + 1) * interval  # a whole interval follows each save
    ways = {"none": "", "before": "save", "after": "begin_save"}
    runs: dict[str, list[list[float]]] = {name: [] for name in ways}
    size = 0
    for _ in range(repeats):
        for name, method in ways.items():
            seconds, found = time_run(trainer, dataset, steps, interval, method)
            runs[name].append(seconds)
            size = max(size, found)
    usual = statistics.median(value for run in runs["none"] for value in run)
    yield (
        f"{trainer.stepper.device.type}, torch {torch.__version__}: a step {usual:.4f} s, a state"
        f" {size / 1e9:.3f} GB, {saves} saves {interval} steps apart, {repeats} times"
    )
    without, shares = statistics.median(map(beyond_usual, runs["none"])), {}
    for name in ("before", "after"):
        pauses = [
            run[done] - statistics.median(run)
            for run in runs[name]
            for done in range(interval, steps, interval)
        ]
        extra = (statistics.median(map(beyond_usual, runs[name])) - without) / saves
        shares[name] = extra / (every * usual + extra)
        yield (
            f"{name:6}  pause: longest {max(pauses):.3f} s, median {statistics.median(pauses):.3f}"
            f" s; in all {extra:.3f} s a save, {shares[name]:.2%} of the time at every {every}"
        )
    yield f"after / before: {shares['after'] / shares['before']:.2f} of the time"


def beyond_usual(run: list[float]) -> float:
    """Return the seconds of all steps beyond those that as many usual ones take."""
    return sum(run) - len(run) * statistics.median(run)


# --- Kills ---


def stage(name: str) -> list[str]:
    """Return the command of a stage on the folder's configuration."""
    return [sys.executable, "-m", f"stages.{name}", "--config", "my.yaml"]


class Run:
    """A run of the stage train in a folder, killed or not."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.env = environment()
        (folder / "my.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        text = TEXT * (1 + 20 * config["block_size"] // len(TEXT)) * 4
        (folder / "text.txt").write_text(text, encoding="utf-8")
        subprocess.run(stage("prepare"), check=True, **self.quiet())

    def quiet(self) -> dict[str, Any]:
        """Return how commands are run."""
        return {"cwd": self.folder, "env": self.env, "stdout": subprocess.DEVNULL}

    def states(self) -> set[str]:
        """Return the names of the whole states."""
        return {path.name for path in self.folder.glob(".resume/*/*-*.pt")}

    def halves(self) -> set[str]:
        """Return the names of states that are being written, or whose writing was cut off."""
        return {path.name for path in self.folder.glob(".resume/*/.partial.*")}

    def weights(self) -> list[str]:
        """Return the SHA-256 of the weights that the run ended with."""
        paths = [self.folder / f"checkpoints/{name}_model.pt" for name in ("final", "best")]
        return [hash_weights(load_tensors(path)["model_state_dict"]) for path in paths]

    def to_the_end(self) -> str:
        """Let it run to its end; return what it printed."""
        kept = {**self.quiet(), "stdout": subprocess.PIPE}
        return str(subprocess.run(stage("train"), check=True, text=True, **kept).stdout)

    def kill(self, save: int, share: float, write_seconds: float) -> bool:
        """Kill it `share` of the time of a write into save number `save`; return whether it was."""
        left = self.halves()  # by an earlier kill
        process = subprocess.Popen(stage("train"), **self.quiet())
        for number in range(save):
            before = self.states()
            if not wait_for(lambda: self.halves() - left, process):
                return False
            if number < save - 1 and not wait_for(lambda: self.states() - before, process):  # noqa: B023
                return False
        time.sleep(share * write_seconds)
        if process.poll() is not None:
            return False
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True

    def clean(self) -> None:
        """Remove what training wrote."""
        for name in ("checkpoints", "metrics", "plots", ".resume", "logs"):
            shutil.rmtree(self.folder / name, ignore_errors=True)


def wait_for(happened: Callable[[], object], process: "subprocess.Popen[bytes]") -> bool:
    """Wait until something `happened`; return whether it did before the process ended."""
    while process.poll() is None:
        if happened():
            return True
        time.sleep(PATIENCE)
    return False


def newest(states: set[str]) -> int:
    """Return the step of the newest state, 0 where there is none."""
    return max((int(name.split("-")[0]) for name in states), default=0)


def measure_write(run: Run) -> float:
    """Return about how long the first state of a run is being written, and end the run."""
    process = subprocess.Popen(stage("train"), **run.quiet())
    wait_for(run.halves, process)
    start = time.perf_counter()
    wait_for(run.states, process)
    seconds = time.perf_counter() - start
    process.kill()
    process.wait()
    run.clean()
    return seconds


def kill_again_and_again(config: dict[str, Any], kills: int, interval: int, seed: int) -> bool:
    """Kill runs in the midst of saves; tell and return whether their weights are as they were."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=".") as name:
        run = Run(Path(name), config)
        run.to_the_end()
        expected = run.weights()
        click.echo(f"unbroken: {expected[0][:16]} (final), {expected[1][:16]} (best)")
        run.clean()
        seconds = measure_write(run)
        killed = halves = ended = equal = right = 0
        while killed < kills or run.states():
            at, save = newest(run.states()), draw.choice((1, 1, 2))
            wanted = killed < kills and at < config["max_iters"] - 2 * interval
            if wanted and run.kill(save, draw.random(), seconds):
                killed += 1
                halves += bool(run.halves())
                kept = newest(run.states())
                right += kept >= at + (save - 1) * interval  # all but what was being written
                click.echo(f"kill {killed}: went on from {at}, in save {save}; {kept} is whole")
                continue
            told = newest_told(run.to_the_end())
            ended += 1
            equal += run.weights() == expected and told == at
            click.echo(f"went on from {told} of {at} to the end: {run.weights()[0][:16]}")
            run.clean()
        click.echo(
            f"{killed} kills in the midst of saves, {halves} of which left half a state: {right}"
            f" lost nothing but that state; {ended} runs came to their end, {equal} from the"
            " newest whole state to the weights of the unbroken run"
        )
        return equal == ended and right == killed


def newest_told(printed: str) -> int:
    """Return the iteration from which a run said that it goes on, 0 for the start."""
    return int(printed.partition("going on from iteration ")[2].partition(";")[0] or 0)


@click.command()
@click.option("--shape", default="tiny", show_default=True, help="A preset, or tiny.")
@click.option("--device", default="auto", show_default=True)
@click.option("--kills", default=0)
@click.option("--saves", default=3, show_default=True)
@click.option("--interval", default=0, help="Steps between two saves; default: 60, 5 for kills.")
@click.option("--every", default=200, show_default=True, help="Steps for which shares are told.")
@click.option("--repeats", default=1, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(
    shape: str,
    device: str,
    kills: int,
    saves: int,
    interval: int,
    every: int,
    repeats: int,
    seed: int,
) -> None:
    """Print pauses and shares before and after, or with `--kills` what became of the weights."""
    if not kills:
        config = shape_of(shape, device, max_iters=10**6, deterministic=False)
        for line in compare(config, saves, interval or 60, every, repeats):
            click.echo(line)
        return
    interval = interval or 5
    own = {
        "corpus": "text.txt",
        "checkpoint_interval": interval,
        **({} if shape == "tiny" else SHORT),
    }
    config = shape_of(shape, device, **own)
    values = {key: value for key, value in config.to_dict().items() if value is not None}
    sys.exit(not kill_again_and_again(values, kills, interval, seed))


if __name__ == "__main__":
    main()
