"""Kill training with -9 at random moments and see whether a rerun ends with the same bytes.

    python benchmarks/resume_study.py --kills 50

Each round kills `python -m stages.train` once, at a moment drawn evenly over its whole length
(start, steps, evaluations, writing of states and of results), runs it again to its end, and
compares checkpoints, metrics and curves with those of an unbroken run.
"""

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from project import environment

PARAMS = """
corpus: text.txt
block_size: 32
n_layer: 2
n_head: 2
n_embd: 32
batch_size: 16
max_iters: 150
eval_interval: 30
eval_iters: 20
checkpoint_interval: 3
device: cpu
"""
TEXT = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate.\n" * 60


def stage(name: str) -> list[str]:
    return [sys.executable, "-m", f"stages.{name}", "--config", "my.yaml"]


def results(folder: Path) -> dict[str, bytes]:
    names = ("checkpoints/final_model.pt", "checkpoints/best_model.pt")
    paths = [*names, "metrics/train.json", "plots/loss.csv"]
    return {path: (folder / path).read_bytes() for path in paths}


def clean(folder: Path) -> None:
    for name in ("checkpoints", "metrics", "plots", ".resume", "logs"):
        shutil.rmtree(folder / name, ignore_errors=True)


@click.command()
@click.option("--kills", default=50, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(kills: int, seed: int) -> None:
    """Print how many of the killed and rerun trainings ended with the bytes of an unbroken one."""
    random.seed(seed)
    env = environment()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "text.txt").write_text(TEXT)
        (folder / "my.yaml").write_text(PARAMS)
        quiet = {"cwd": folder, "env": env, "stdout": subprocess.DEVNULL}
        subprocess.run(stage("prepare"), check=True, **quiet)  # type: ignore[call-overload]
        start = time.monotonic()
        subprocess.run(stage("train"), check=True, **quiet)  # type: ignore[call-overload]
        seconds, expected = time.monotonic() - start, results(folder)
        identical = killed = resumed = 0
        while killed < kills:
            clean(folder)
            process = subprocess.Popen(stage("train"), **quiet)  # type: ignore[call-overload]
            try:
                process.wait(random.uniform(0.0, seconds))
                continue  # it was quicker this time: not a kill
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
            killed += 1
            resumed += any((folder / ".resume").glob("*/*-*.pt"))
            subprocess.run(stage("train"), check=True, **quiet)  # type: ignore[call-overload]
            identical += results(folder) == expected
        print(f"{killed} kills, {resumed} with a state to go on from: {identical} identical")
        sys.exit(identical != killed)


if __name__ == "__main__":
    main()
