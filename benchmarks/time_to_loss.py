"""Seconds from the start of the process to a validation loss, in turn with nanoGPT's train.py.

    python benchmarks/time_to_loss.py --nanogpt PATH --text FILE                  # CPU, loss 1.88
    python benchmarks/time_to_loss.py --nanogpt PATH --text FILE --device cuda    # GPU, loss 1.4697
    python benchmarks/time_to_loss.py --alone --text FILE --device cuda --pairs 5 # cold and warm

PATH is a checkout of karpathy/nanoGPT and FILE tiny Shakespeare, whose first 90% both train on.
nanoGPT runs the command of its README and arrives when its own estimate, of 20 or 200 batches, is
at the target. Ours is `python -m stages.train`, from its start to its end with the checkpoints
written; it has arrived if `evaluate` then finds the target on the whole validation part. Preparing
the text, which both do once, is not counted. With `--alone`, ours runs twice in each pair: where no
kernel was compiled before, and then where that run's are found.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from nanogpt2.base.system import files
from nanogpt2.config import yaml12

ROOT = Path(__file__).parent.parent
TARGETS = {"cpu": 1.88, "cuda": 1.4697}
THEIRS = {
    "cpu": "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64"
    " --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000"
    " --lr_decay_iters=2000 --dropout=0.0",
    "cuda": "",
}
SHARED = {
    "architecture": "modern", "optimizer": "muon", "mlp": "gelu", "logit_softcap": 15,
    "vocab_size": 65, "val_fraction": 0.1, "test_fraction": 0, "min_learning_rate_fraction": 0,
    "learning_rate": 1e-2, "mixed_precision": True, "eval_interval": 1_000_000, "eval_iters": 2,
    "save_checkpoint": False,
}  # fmt: skip
OURS = {
    "cpu": {
        "block_size": 64, "batch_size": 20, "n_layer": 2, "n_head": 1, "n_embd": 64,
        "dropout": 0, "max_iters": 400, "warmup_iters": 20, "beta2": 0.99,
        "muon_learning_rate": 0.02,
    },
    "cuda": {
        "block_size": 512, "batch_size": 32, "n_layer": 6, "n_head": 4, "n_embd": 256,
        "dropout": 0.15, "max_iters": 580, "warmup_iters": 50, "beta2": 0.95,
        "muon_learning_rate": 0.03, "deterministic": False,
    },
}  # fmt: skip


def run_theirs(folder: Path, device: str, target: float) -> tuple[float, float]:
    """Return nanoGPT's seconds to `target`, or to its end, and its estimate then."""
    command = [sys.executable, "-u", "train.py", "config/train_shakespeare_char.py"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, *THEIRS[device].split()], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    seconds, loss = 0.0, float("inf")
    for line in process.stdout:
        if found := re.match(r"step \d+: .*val loss (\S+)", line):
            seconds, loss = time.perf_counter() - start, float(found[1])
            if loss <= target:
                process.kill()
    process.wait()
    return seconds, loss


def run_ours(folder: Path, device: str, caches: Path | None = None) -> tuple[float, float]:
    """Return our seconds, and the loss on the whole validation part, every character once.

    What is compiled is kept in `caches`, or where it is usually kept. A run that is not at the
    target then ends the comparison.
    """
    shared = ["--config", "params.yaml", "--data", "prepared"]
    start = time.perf_counter()
    stage(folder, "train", *shared, caches=caches)
    seconds = time.perf_counter() - start
    stage(folder, "evaluate", *shared, "--checkpoint", "checkpoints/final_model.pt")
    loss = json.loads((folder / "metrics/eval.json").read_text())["val"]["loss"]
    if loss > TARGETS[device]:
        raise click.ClickException(f"ours is at {loss:.4f}, not at {TARGETS[device]}")
    return seconds, loss


def stage(folder: Path, name: str, *options: str, caches: Path | None = None) -> None:
    """Run a stage of the project in `folder`."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    if caches:
        environment |= {"XDG_CACHE_HOME": str(caches), "TRITON_CACHE_DIR": str(caches / "triton")}
    command = [sys.executable, "-m", f"stages.{name}", *options]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)


def prepare_theirs(folder: Path, nanogpt: Path, text: Path) -> Path:
    """Return a folder of nanoGPT with the text prepared."""
    theirs = folder / "theirs"
    shutil.copytree(nanogpt, theirs, ignore=shutil.ignore_patterns(".git"))
    shutil.copy(text, theirs / "data/shakespeare_char/input.txt")
    subprocess.run(
        [sys.executable, "data/shakespeare_char/prepare.py"], cwd=theirs, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return theirs


def prepare_ours(folder: Path, text: Path, device: str) -> Path:
    """Return a folder with our params.yaml and the text prepared."""
    ours = folder / "ours"
    ours.mkdir()
    values = SHARED | OURS[device] | {"device": device, "corpus": str(text.resolve())}
    lines = [f"{key}: {yaml12.format_scalar(value)}\n" for key, value in values.items()]
    files.write_text(ours / "params.yaml", "".join(lines))
    stage(ours, "prepare", "--config", "params.yaml", "--out", "prepared")
    return ours


def compare(folder: Path, nanogpt: Path, text: Path, device: str, pairs: int) -> None:
    """Print the seconds of ours and of nanoGPT in each pair, and the median of the ratios."""
    ours, theirs = prepare_ours(folder, text, device), prepare_theirs(folder, nanogpt, text)
    ratios = []
    for _ in range(pairs):
        mine, loss = run_ours(ours, device)
        other, estimate = run_theirs(theirs, device, TARGETS[device])
        ratios.append(other / mine)
        print(
            f"nanoGPT2 {mine:6.2f} s (loss {loss:.4f}), nanoGPT {other:6.2f} s (estimate"
            f" {estimate:.4f}), ratio {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"to a validation loss of {TARGETS[device]}: {statistics.median(ratios):.2f} x sooner")


def time_starts(folder: Path, text: Path, device: str, pairs: int) -> None:
    """Print the seconds of ours with empty caches and again in each pair, and their medians."""
    ours = prepare_ours(folder, text, device)
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    for pair in range(pairs):
        for kind, taken in seconds.items():
            mine, loss = run_ours(ours, device, folder / f"caches-{pair}")
            taken.append(mine)
            print(f"{kind} {mine:6.2f} s (loss {loss:.4f})", flush=True)
    medians = (f"{kind} {statistics.median(taken):.2f} s" for kind, taken in seconds.items())
    print(f"to a validation loss of {TARGETS[device]}: {', '.join(medians)}")


@click.command()
@click.option("--nanogpt", type=Path, help="A checkout of karpathy/nanoGPT.")
@click.option("--alone", is_flag=True, help="Ours without nanoGPT, with empty caches and again.")
@click.option("--text", type=Path, required=True, help="Tiny Shakespeare.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--pairs", default=3, show_default=True)
def main(nanogpt: Path | None, alone: bool, text: Path, device: str, pairs: int) -> None:
    """Print how long a run takes to its target, beside nanoGPT or cold and warm."""
    if (nanogpt is None) != alone:
        raise click.UsageError("give either --nanogpt or --alone")
    with tempfile.TemporaryDirectory() as name:
        if nanogpt:
            compare(Path(name), nanogpt, text, device, pairs)
        else:
            time_starts(Path(name), text, device, pairs)


if __name__ == "__main__":
    main()
