"""Tokens per second of generation, in turn with another way to generate, same random weights.

    python benchmarks/sample_speed.py --nanogpt PATH                    # CPU: nano, small and 124M
    python benchmarks/sample_speed.py --nanogpt PATH --device cuda      # GPU: 124M
    python benchmarks/sample_speed.py --only small                      # CPU, without nanoGPT
    python benchmarks/sample_speed.py --only base --batches             # 1 to 1024 texts at a time

PATH is a checkout of karpathy/nanoGPT; its cases take a preset's shape as GPT-2. The others take a
preset as it is, beside the model's own modules over a cache. Each figure is the median of
`--repeats` pairs; the floor of a cached step is the time in which its weights come through the
memory once, and MBU the share of the memory's speed that the steps of ours use for that.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from nanogpt import load_nanogpt, make_theirs
from torch import Tensor

from nanogpt2.config.config import get_config
from nanogpt2.decode.decoder import ModuleDecoder
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.kernels.choose import prepare
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.bandwidth import measure_bandwidth, utilization, weights_read
from nanogpt2.sample.generate import generate

MODULES, NANOGPT = "modules", "nanoGPT"
BATCHES = [4**n for n in range(6)]


@dataclass(frozen=True)
class Case:
    """One comparison: `tokens` of ours and `their_tokens` of the other side, after a prompt."""

    preset: str
    rows: int
    tokens: int
    their_tokens: int
    window: str = "exact"
    dtype: str = "float32"
    prompt: int = 1
    beside: str = NANOGPT
    block_size: int | None = None  # the preset's
    method: bool = False  # ours is model.generate, which draws with torch's generator

    @property
    def shape(self) -> tuple[str, str, str, int | None]:
        """What the model of the case depends on."""
        return self.preset, self.beside, self.dtype, self.block_size

    def describe(self) -> str:
        """Return the case in a few columns."""
        kind = "as it is" if self.beside == MODULES else "as GPT-2"
        way = "model.generate" if self.method else self.window
        sizes = f"{self.rows:2} x {self.prompt:3} + {self.tokens:3}"
        return f"{self.preset:5} {kind} {self.dtype:8} {sizes} {way:14}"


CPU_CASES = [
    *(Case("nano", rows, 127, 127, beside=MODULES) for rows in (1, 32)),
    *(Case("nano", rows, 500, 500, window="half", beside=MODULES) for rows in (1, 32)),
    *(Case("small", rows, 255, 255, beside=MODULES) for rows in (1, 32)),
    *(Case("nano", rows, 127, 127) for rows in (1, 32)),
    *(Case("nano", rows, 500, 500, window="half") for rows in (1, 32)),
    *(Case("nano", rows, 500, 500) for rows in (1, 32)),
    Case("nano", 1, 500, 500, block_size=512, method=True),
    Case("base", 1, 32, 8),
    Case("base", 1, 32, 4, prompt=500),
    Case("base", 32, 16, 4),
]
CUDA_CASES = [
    Case("base", rows, 500, 100, dtype=dtype)
    for dtype in ("float32", "bfloat16")
    for rows in (1, 32)
]


def make_model(case: Case, device: str) -> GPT:
    """Return the model of `case` with random weights."""
    changes: dict[str, Any] = {"dropout": 0.0}
    if case.beside == NANOGPT:
        changes |= {"architecture": "gpt2", "vocab_size": 50257 if case.preset == "base" else 256}
    if case.block_size:
        changes["block_size"] = case.block_size
    model = GPT(get_config(case.preset, **changes))
    return model.to(device=device, dtype=getattr(torch, case.dtype)).eval()


class Sides:
    """A model and the other side, which shares its weights."""

    def __init__(self, case: Case, device: str, nanogpt: Any) -> None:
        self.model = make_model(case, device)
        self.make_decoder = prepare(self.model)  # packing weights once is not counted
        self.weights = weights_read(self.model)  # bytes
        self.theirs: Any = None
        if nanogpt and case.beside == NANOGPT:
            weight = self.model.wte.weight
            self.theirs = make_theirs(nanogpt, self.model).to(weight.device, weight.dtype).eval()

    def run_ours(self, case: Case, idx: Tensor, tokens: int) -> Tensor:
        if case.method:
            return self.model.generate(idx, tokens)
        return self._generate(case, idx, tokens, self.make_decoder)

    def run_theirs(self, case: Case, idx: Tensor, tokens: int) -> Tensor:
        if self.theirs is None:
            modules = partial(ModuleDecoder, self.model, n_tokens=None)
            return self._generate(case, idx, tokens, modules)
        drawn: Tensor = self.theirs.generate(idx.to(self.model.wte.weight.device), tokens)
        return drawn

    def _generate(self, case: Case, idx: Tensor, tokens: int, make_decoder: Any) -> Tensor:
        return generate(
            self.model,
            idx,
            tokens,
            controls=Controls(),
            seed=0,
            window=case.window,
            make_decoder=make_decoder,
        )


def seconds(run: Callable[[], Tensor], clock: Callable[[], float]) -> float:
    """Return how long `run` takes, its result on the host included."""
    start = clock()
    run().cpu()
    return clock() - start


def measure(
    case: Case, sides: Sides, repeats: int, clock: Callable[[], float], bandwidth: float
) -> None:
    """Print the medians of both sides, and of the ratios of the pairs."""
    idx = torch.zeros(case.rows, case.prompt, dtype=torch.long)
    ours = partial(sides.run_ours, case, idx)
    theirs = partial(sides.run_theirs, case, idx)
    ours(3), theirs(2)
    pairs = [
        (
            seconds(partial(ours, case.tokens), clock) / case.tokens,
            seconds(partial(theirs, case.their_tokens), clock) / case.their_tokens,
        )
        for _ in range(repeats)
    ]
    speeds = [case.rows / statistics.median(side) for side in zip(*pairs, strict=True)]
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    share = utilization(speeds[0] / case.rows, sides.weights, bandwidth)
    print(
        f"{case.describe()} {speeds[0]:9.0f} tok/s {share}"
        f"   {case.beside} ({case.their_tokens:3}) {speeds[1]:7.0f} tok/s   {ratio:6.1f} x",
        flush=True,
    )


def count_greedy(case: Case, sides: Sides) -> None:
    """Print up to where greedy texts of ours, and of model.generate, are nanoGPT's."""
    tokens, idx = 100, torch.randint(256, (4, 8))
    idx = idx.to(sides.model.wte.weight.device)
    assert sides.theirs is not None
    expected = sides.theirs.generate(idx, tokens, top_k=1).cpu()
    greedy = Controls(temperature=0)
    texts = {
        "generate": generate(sides.model, idx.cpu(), tokens, controls=greedy, seed=0),
        "model.generate": sides.model.generate(idx, tokens, temperature=0).cpu(),
    }
    for name, text in texts.items():
        same = (text == expected).cumprod(dim=1).sum(dim=1) - idx.shape[1]
        print(f"{name}: greedy tokens as nanoGPT's: {same.tolist()} of {tokens} in each of 4 texts")


def measure_batches(
    case: Case, sides: Sides, repeats: int, bandwidth: float, *, device: str
) -> None:
    """Print the latency of a step and the throughput of so many texts at a time, of ours alone."""
    for rows in BATCHES:
        idx = torch.zeros(rows, case.prompt, dtype=torch.long)
        tokens = case.tokens if device == "cuda" else max(8, case.tokens // max(1, rows // 64))
        draw = partial(sides.run_ours, case, idx)
        draw(3)
        timed = [seconds(partial(draw, tokens), time.perf_counter) for _ in range(repeats)]
        steps = tokens / statistics.median(timed)
        print(
            f"{case.preset:5} {case.dtype:8} {rows:4} x {tokens:3}: {1e3 / steps:8.3f} ms a step"
            f" {rows * steps:9.0f} tok/s {utilization(steps, sides.weights, bandwidth)}",
            flush=True,
        )


def say_floor(weights: int, bandwidth: float) -> None:
    """Print how long the weights of one cached step take to come through the memory."""
    print(
        f"floor: {weights / 1e6:.1f} MB of weights at {bandwidth / 1e9:.0f} GB/s:"
        f" {weights / bandwidth * 1e3:.3f} ms, {bandwidth / weights:.0f} steps/s"
    )


@click.command()
@click.option("--nanogpt", type=Path, help="A checkout of karpathy/nanoGPT, for its cases.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--threads", default=0, help="Of the CPU; 0 leaves torch's choice.")
@click.option("--only", default="", help="A preset: its cases alone.")
@click.option("--batches", is_flag=True, help="Ours alone, with 1 to 1024 texts at a time.")
@click.option("--busy", is_flag=True, help="Count the processor's time: other work shares it.")
def main(
    nanogpt: Path | None,
    device: str,
    repeats: int,
    threads: int,
    only: str,
    batches: bool,
    busy: bool,
) -> None:
    """Print a line for each case: our tokens per second, theirs, and the ratio of the pairs."""
    if threads:
        torch.set_num_threads(threads)
    name = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    clock = time.process_time if busy else time.perf_counter
    print(f"torch {torch.__version__}, {device}: {name}{', processor time' * busy}")
    module = load_nanogpt(nanogpt) if nanogpt else None
    bandwidth = measure_bandwidth(device)
    sides, last = None, None
    for case in CUDA_CASES if device == "cuda" else CPU_CASES:
        if only not in ("", case.preset):
            continue
        if module is None and case.beside == NANOGPT and not batches:
            continue
        if batches and case.shape == last:
            continue
        if sides is None or case.shape != last:
            sides, last = Sides(case, device, module), case.shape
            say_floor(sides.weights, bandwidth)
            if batches:
                measure_batches(case, sides, repeats, bandwidth, device=device)
                continue
            if sides.theirs and case.dtype == "float32" and (device, only) != ("cpu", "base"):
                count_greedy(case, sides)
        measure(case, sides, repeats, clock, bandwidth)


if __name__ == "__main__":
    main()
