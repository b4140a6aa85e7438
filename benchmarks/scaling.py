"""Tokens per second of one process and of several, on random tokens.

    python benchmarks/scaling.py --device cuda --processes 2
    python benchmarks/scaling.py --device cuda --processes 2 --size 1.5b --parallel fsdp --batch 8
    python benchmarks/scaling.py --device cpu --parallel fsdp --batch 1 --precision bf16 --steps 3

Each process has the same batch in both runs, so that N processes do N times the work in a step;
the ratio of the speeds is N where they cost one another nothing. `1.5b` is the shape of GPT-2 XL.
What a process keeps from forward to backward, of activations and of weights, is told too.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nanogpt2.base.system.errors import exit_with_one_line
from nanogpt2.device.launch import is_launched, launch

if TYPE_CHECKING:
    from nanogpt2.config.config import Config
    from nanogpt2.model.gpt import GPT
    from nanogpt2.train.step import Stepper

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 64},
    "base": {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024},
    "1.5b": {"n_layer": 48, "n_head": 25, "n_embd": 1600, "block_size": 1024},
}
VOCAB_SIZES = {"tiny": 256, "base": 256, "1.5b": 50304}


def measure(
    size: str,
    *,
    device: str,
    precision: str | None,
    parallel: str,
    optimizer: str,
    batch: int,
    warm_up: int,
    steps: int,
) -> dict[str, Any]:
    """Time steps in this process and those it is launched with; return the main one's figures."""
    import numpy as np
    import torch

    from nanogpt2.config.config import get_config
    from nanogpt2.device.group import joined
    from nanogpt2.tokens.dataset import TokenDataset
    from nanogpt2.train.step import Stepper

    settings = {"device": device, "parallel": parallel, "optimizer": optimizer, "dropout": 0.0}
    settings |= {"precision": precision or ("fp32" if device == "cpu" else "auto")}
    settings |= {"deterministic": False, "max_iters": 1000}
    shape = SIZES[size] | {"vocab_size": VOCAB_SIZES[size]}
    processes = int(os.environ["WORLD_SIZE"])
    config = get_config({**settings, **shape, "batch_size": batch * processes})
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, 1_000_000).astype(np.uint16)
    data = TokenDataset(tokens, config.block_size)
    with joined(config) as group:
        stepper = Stepper(make_model(config), config, group=group)
        for step in range(warm_up):
            first = stepper.step(data, step).figures
        stepper.synchronize()
        group.highest(0)
        start = time.perf_counter()
        for step in range(warm_up, warm_up + steps):
            stepper.step(data, step)
        stepper.synchronize()
        group.highest(0)
        seconds = (time.perf_counter() - start) / steps
        peak = torch.cuda.max_memory_allocated() if stepper.device.type == "cuda" else 0
        parameters = sum(weight.numel() for weight in stepper.weights)
        assert first.isfinite().all()
        kept = kept_bytes(stepper, batch)
        stepper.release()
    return {
        "processes": group.size,
        "kind": group.kind,
        "main": group.is_main,
        "parameters": parameters,
        "seconds": seconds,
        "tokens": stepper.windows_per_step * config.block_size / seconds,
        "peak": peak,
        "kept": kept,
        "micro_batch": stepper.micro_batch.size,
    }


def kept_bytes(stepper: "Stepper", batch: int) -> int:
    """Return how many bytes `batch` sequences keep from the forward to the backward pass."""
    import torch

    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    idx = torch.zeros(batch, stepper.config.block_size, dtype=torch.int64, device=stepper.device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), stepper.autocast():
        stepper.model.loss(idx, idx)
    storages = [tensor.untyped_storage() for tensor in kept]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def make_model(config: "Config") -> "GPT":
    """Return a model with random weights, drawn on the device: the host would take minutes."""
    import torch

    from nanogpt2.device.device import find_device
    from nanogpt2.model.gpt import GPT

    with torch.device("meta"):
        model = GPT(config)
    model = model.to_empty(device=find_device(config.device))
    torch.manual_seed(0)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, 1.0 if weight.dim() == 1 else 0.0, 0.02)
    return model


def describe(figures: dict[str, Any], batch: int) -> str:
    """Return one line about a run."""
    line = (
        f"{figures['processes']} x {batch} sequences, {figures['kind']},"
        f" {figures['parameters'] / 1e6:,.1f} million parameters:"
        f" {figures['tokens']:,.0f} tokens/s, {figures['seconds']:.4f} s a step"
    )
    line += f", {figures['kept'] / 2**20:,.0f} MiB kept for the backward pass"
    if figures["peak"]:
        line += f", {figures['peak'] / 2**30:.1f} GiB at most on a GPU"
    if figures["micro_batch"] < batch:
        line += f", {figures['micro_batch']} sequences at a time for want of memory"
    return line


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--processes", default=2, show_default=True)
@click.option("--size", type=click.Choice(list(SIZES)), default="base", show_default=True)
@click.option("--precision", default=None, help="Default: fp32 on a CPU, else auto.")
@click.option("--parallel", type=click.Choice(["ddp", "fsdp"]), default="ddp", show_default=True)
@click.option("--optimizer", default="adamw", show_default=True)
@click.option("--batch", default=64, show_default=True, help="Sequences of each process.")
@click.option("--warm-up", default=10, show_default=True)
@click.option("--steps", default=30, show_default=True)
@click.option("--alone/--no-alone", default=True, help="Whether to measure one process too.")
@click.option("--out", type=Path, default=None, help="Receives the figures of one run as JSON.")
@exit_with_one_line()
def main(processes: int, alone: bool, out: Path | None, batch: int, **options: Any) -> None:
    """Print tokens per second of one process and of several, and their ratio."""
    if is_launched():
        figures = measure(batch=batch, **options)
        if figures.pop("main") and out is not None:
            out.write_text(json.dumps(figures), encoding="utf-8")
        return
    found = []
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "figures.json"
        for count in [1, processes] if alone else [processes]:
            command = [sys.executable, *sys.orig_argv[1:], "--out", str(result)]
            launch(count, command)
            found.append(json.loads(result.read_text(encoding="utf-8")))
            print(describe(found[-1], batch), flush=True)
    if alone:
        ratio = found[1]["tokens"] / found[0]["tokens"]
        print(f"{processes} processes: {ratio:.2f} times the speed of one")


if __name__ == "__main__":
    main()
