"""Tokens per second of generation, in turn with nanoGPT's own `generate`, same random weights.

    python benchmarks/sample_speed.py --nanogpt PATH                    # CPU: nano and 124M
    python benchmarks/sample_speed.py --nanogpt PATH --device cuda      # GPU: 124M

PATH is a checkout of karpathy/nanoGPT. Each figure is the median of `--repeats` pairs; the floor
of a cached step is the time in which its weights come through the memory once.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from nanogpt import load_nanogpt, make_theirs
from torch import Tensor

from nanogpt2.config.config import get_config
from nanogpt2.decode.choose import prepare
from nanogpt2.decode.draw import Controls
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.generate import generate


@dataclass(frozen=True)
class Case:
    """One comparison: `tokens` of ours and `their_tokens` of nanoGPT's."""

    preset: str
    rows: int
    tokens: int
    their_tokens: int
    window: str = "exact"
    dtype: str = "float32"
    prompt: int = 1


CPU_CASES = [
    Case("nano", 1, 500, 500),
    Case("nano", 1, 500, 500, window="half"),
    Case("nano", 1, 127, 127),
    Case("nano", 32, 500, 500),
    Case("nano", 32, 500, 500, window="half"),
    Case("nano", 32, 127, 127),
    Case("base", 1, 500, 500),
    Case("base", 1, 32, 8),
    Case("base", 1, 32, 4, prompt=500),
]
CUDA_CASES = [
    Case("base", rows, 500, 100, dtype=dtype)
    for dtype in ("float32", "bfloat16")
    for rows in (1, 32)
]


def make_pair(nanogpt: Any, preset: str, device: str, dtype: str) -> tuple[GPT, Any]:
    """Return our model and theirs with our weights."""
    vocab_size = 50257 if preset == "base" else 256
    config = get_config(preset, dropout=0.0, vocab_size=vocab_size)
    ours = GPT(config)
    theirs = make_theirs(nanogpt, ours)
    to = {"device": device, "dtype": getattr(torch, dtype)}
    return ours.to(**to).eval(), theirs.to(**to).eval()


def seconds(run: Callable[[], Tensor]) -> float:
    """Return how long `run` takes, its result on the host included."""
    start = time.perf_counter()
    run().cpu()
    return time.perf_counter() - start


def measure(case: Case, ours: GPT, theirs: Any, repeats: int) -> None:
    """Print the medians of both sides, and their ratio; folding weights once is not counted."""
    make_decoder = prepare(ours)
    idx = torch.zeros(case.rows, case.prompt, dtype=torch.long)
    their_idx = idx.to(ours.wte.weight.device)

    def run_ours() -> Tensor:
        return generate(
            ours,
            idx,
            case.tokens,
            controls=Controls(),
            seed=0,
            window=case.window,
            make_decoder=make_decoder,
        )

    def run_theirs() -> Tensor:
        drawn: Tensor = theirs.generate(their_idx, case.their_tokens)
        return drawn

    generate(ours, idx, 3, controls=Controls(), seed=0)
    theirs.generate(their_idx, 2)
    pairs = [(seconds(run_ours), seconds(run_theirs)) for _ in range(repeats)]
    our_speed = case.rows * case.tokens / statistics.median(pair[0] for pair in pairs)
    their_speed = case.rows * case.their_tokens / statistics.median(pair[1] for pair in pairs)
    ratios = [case.tokens / ours / (case.their_tokens / theirs) for ours, theirs in pairs]
    print(
        f"{case.preset:5} {case.dtype:9} {case.rows:2} x {case.prompt:3} + {case.tokens:3}"
        f" {case.window:6} {our_speed:9.0f} tok/s"
        f"   nanoGPT ({case.their_tokens:3}) {their_speed:7.0f} tok/s"
        f"   {statistics.median(ratios):6.1f} x",
        flush=True,
    )


def count_greedy(ours: GPT, theirs: Any) -> None:
    """Print up to where greedy texts of both sides are the same."""
    tokens = 100
    idx = torch.randint(256, (4, 8))
    our_text = generate(ours, idx, tokens, controls=Controls(temperature=0), seed=0)
    their_text = theirs.generate(idx.to(ours.wte.weight.device), tokens, top_k=1).cpu()
    same = (our_text == their_text).cumprod(dim=1).sum(dim=1) - idx.shape[1]
    print(f"greedy tokens the same as nanoGPT's: {same.tolist()} of {tokens} in each of 4 texts")


def measure_floor(model: GPT, device: str, repeats: int) -> None:
    """Print how long the weights of one cached step take to come through the memory."""
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    weights -= model.wpe.weight.numel() * model.wpe.weight.element_size()  # one row of it is read
    block = torch.ones(2**28 if device == "cuda" else 2**26, device=device)
    times = []
    for _ in range(max(5, repeats)):
        start = time.perf_counter()
        block.sum().item()
        times.append(time.perf_counter() - start)
    bandwidth = block.numel() * 4 / statistics.median(times)
    print(
        f"floor: {weights / 1e6:.1f} MB of weights at {bandwidth / 1e9:.0f} GB/s:"
        f" {weights / bandwidth * 1e3:.3f} ms, {bandwidth / weights:.0f} steps/s"
    )


@click.command()
@click.option("--nanogpt", type=Path, required=True, help="A checkout of karpathy/nanoGPT.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--threads", default=0, help="Of the CPU; 0 leaves torch's choice.")
@click.option("--only", default="", help="A preset: its cases alone.")
def main(nanogpt: Path, device: str, repeats: int, threads: int, only: str) -> None:
    """Print a line for each case: our tokens per second, nanoGPT's, and the ratio of the pairs."""
    if threads:
        torch.set_num_threads(threads)
    name = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    print(f"torch {torch.__version__}, {device}: {name}")
    module = load_nanogpt(nanogpt)
    last, pair = None, None
    for case in CUDA_CASES if device == "cuda" else CPU_CASES:
        if only not in ("", case.preset):
            continue
        if (case.preset, case.dtype) != last or pair is None:
            last = case.preset, case.dtype
            pair = make_pair(module, case.preset, device, case.dtype)
            measure_floor(pair[0], device, repeats)
            if case.dtype == "float32" and (device == "cuda" or case.preset == "nano"):
                count_greedy(*pair)
        measure(case, *pair, repeats)


if __name__ == "__main__":
    main()
