"""Tokens per second of training, in turn with nanoGPT: same weights, batches and optimizer.

    python benchmarks/train_speed.py --nanogpt PATH --text FILE --preset nano --dropout 0.1
    python benchmarks/train_speed.py --nanogpt PATH --text FILE --preset base --device cuda \\
        -S batch_size 64 -S gradient_accumulation_steps 1 -S vocab_size 50304

PATH is a checkout of karpathy/nanoGPT. Each side runs as it is quickest: nanoGPT's training step
in float32 on a CPU, as its train.py has it, and on a GPU in bfloat16 with torch.compile and the
fused AdamW; ours with `mixed_precision: true`. The model is GPT-2 without biases, trained by AdamW.
First each trains without dropout from the same weights on the same batches, and their losses are
compared; then blocks of steps are timed in turn. Where nanoGPT runs out of memory, ours is measured
alone. The floor is what floor.py says of the step.
"""

import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import torch
from floor import measure_floor
from nanogpt import load_nanogpt, make_theirs
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from nanogpt2.config import yaml12
from nanogpt2.config.config import Config, get_config
from nanogpt2.device.memory import is_out_of_memory
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.tokens.tokenizer import CharTokenizer
from nanogpt2.train.batches import Batches
from nanogpt2.train.optimizers.rates import learning_rate_factor
from nanogpt2.train.step import Stepper

Step = Callable[[int], Tensor]  # trains on the batch of a step, and returns its loss
LOSS_TOLERANCE = 0.005  # bfloat16 against float32, after CHECKED_STEPS
CHECKED_STEPS = 20
WARM_UP = 6
T = TypeVar("T")
KINDS = {
    "attention": ("attention", "Attention", "flash", "softmax_warp", "fmha", "sdpa", "cudnn"),
    "loss": ("log_softmax", "nll", "cross_entropy"),
    "norms": ("norm", "Norm"),  # fused with dropout and the residual's sum on a GPU
    "matrix products": ("mm", "linear", "gemm", "nvjet", "cutlass", "splitK", "sm90"),
    "nonlinearity": ("gelu", "Gelu", "relu", "silu"),
    "dropout": ("dropout", "Dropout", "bernoulli", "philox"),
    "rotary positions": ("Rotate", "rotate"),
    "optimizer": ("Optimizer", "adam", "foreach", "Muon", "multi_tensor"),
    "embedding": ("embedding", "index"),
    "copies and sums": (
        "copy",
        "cat",
        "add",
        "fill",
        "sum",
        "to_copy",
        "Memcpy",
        "Memset",
        "elementwise",
    ),
}


# --- The two sides ---


def make_nanogpt_step(model: Any, config: Config, dataset: TokenDataset, compiled: bool) -> Step:
    """Return a step as in nanoGPT's train.py, on the windows that ours draws."""
    device = torch.device(config.device)
    on_gpu = device.type == "cuda"
    model = model.to(device).train()
    betas = config.beta1, config.beta2
    optimizer = model.configure_optimizers(
        config.weight_decay, config.learning_rate, betas, device.type
    )
    forward = torch.compile(model) if compiled else model
    context = torch.autocast("cuda", dtype=torch.bfloat16) if on_gpu else nullcontext()
    text = torch.from_numpy(dataset.tokens.astype("int64"))
    tokens = torch.cat([text, text[: config.block_size + 1]])  # a ring: its first follows its last
    parts = config.gradient_accumulation_steps
    drawn = Batches(config.seed, torch.device("cpu"), sampling=config.sampling)  # as ours draws

    def batch(windows: list[int]) -> tuple[Tensor, Tensor]:
        size = config.block_size
        x = torch.stack([tokens[i : i + size] for i in windows])
        y = torch.stack([tokens[i + 1 : i + 1 + size] for i in windows])
        if on_gpu:
            x, y = (t.pin_memory().to(device, non_blocking=True) for t in (x, y))
        return x, y

    def train(step: int) -> Tensor:
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, config)
        count = config.batch_size * parts
        windows = drawn.draw(dataset, count, step).tolist()
        total = torch.zeros((), device=device)
        for part in range(parts):
            x, y = batch(windows[part * config.batch_size : (part + 1) * config.batch_size])
            with context:
                loss = forward(x, y)[1] / parts
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return total

    return train


# --- Measuring ---


def time_block(run: Step, first: int, steps: int) -> float:
    """Return the seconds of one step."""
    start = time.perf_counter()
    for step in range(first, first + steps):
        loss = run(step)
    loss.flatten()[0].item()  # waits for the device
    return (time.perf_counter() - start) / steps


def unless_memory_runs_out(work: Callable[[], T], instead: str) -> T | None:
    """Return what nanoGPT's `work` does, or None where its memory runs out: say `instead`."""
    try:
        return work()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    release_memory()
    print(f"nanoGPT runs out of memory: {instead}")
    return None


def release_memory() -> None:
    """Give the device what no object holds any more."""
    gc.collect()
    torch.cuda.empty_cache()


@dataclass(frozen=True)
class Comparison:
    """Both sides on the same text, and how each is made."""

    nanogpt: Any
    compiled: bool
    config: Config
    dataset: TokenDataset

    def make_ours(self) -> tuple[Stepper, Step]:
        """Return our step from the initial weights, and what does it."""
        stepper = Stepper(GPT(self.config), self.config)
        return stepper, lambda step: stepper.step(self.dataset, step).figures[0]

    def make_theirs(self) -> Step:
        """Return nanoGPT's step from the same weights."""
        model = make_theirs(self.nanogpt, GPT(self.config))
        return make_nanogpt_step(model, self.config, self.dataset, self.compiled)


def compare_losses(sides: Comparison) -> None:
    """Print the losses of both sides on the same batches, one side after the other.

    Ends where they differ.
    """

    def losses(step: Step) -> list[float]:
        return [step(number).item() for number in range(CHECKED_STEPS)]

    theirs = unless_memory_runs_out(lambda: losses(sides.make_theirs()), "losses are not compared")
    release_memory()
    if theirs is None:
        return
    ours = losses(sides.make_ours()[1])
    apart = max(abs(mine - other) / other for mine, other in zip(ours, theirs, strict=True))
    print(f"losses: {ours[0]:.4f} and {theirs[0]:.4f} before the first step,", end=" ")
    print(f"{ours[-1]:.4f} and {theirs[-1]:.4f} after {CHECKED_STEPS}; apart by {apart:.2%}")
    if apart > LOSS_TOLERANCE:
        raise click.ClickException("the two sides do not compute the same")


def warm_theirs(sides: Comparison) -> Step | None:
    """Return nanoGPT's step after some, or None where there is no memory for it beside ours."""

    def warm() -> Step:
        step = sides.make_theirs()
        time_block(step, 0, WARM_UP)
        return step

    return unless_memory_runs_out(warm, "ours is timed alone")


def time_sides(sides: Comparison, pairs: int, steps: int) -> tuple[float, torch.dtype]:
    """Print both speeds and their ratio; return the seconds of our step and its precision."""
    stepper, ours = sides.make_ours()
    time_block(ours, 0, WARM_UP)
    theirs = warm_theirs(sides)
    runs = [ours] if theirs is None else [ours, theirs]
    times: list[list[float]] = []
    for pair in range(pairs):
        first = WARM_UP + pair * steps
        order = range(len(runs))[:: 1 if pair % 2 else -1]
        found = {side: time_block(runs[side], first, steps) for side in order}
        times.append([found[side] for side in range(len(runs))])
    medians = [statistics.median(pair[side] for pair in times) for side in range(len(runs))]
    tokens = stepper.windows_per_step * sides.config.block_size
    for name, seconds in zip(("nanoGPT2", "nanoGPT"), medians, strict=False):
        print(f"{name:8} {seconds * 1e3:8.2f} ms a step, {tokens / seconds:11,.0f} tokens/s")
    if len(runs) == 2:
        ratio = statistics.median(other / mine for mine, other in times)
        print(f"ratio {ratio:.2f} (median of {pairs} pairs)")
    print_shares(ours, sides.config.device, WARM_UP + pairs * steps)
    return medians[0], stepper.dtype


def print_shares(run: Step, device: str, first: int) -> None:
    """Print which kinds of work our step consists of, as the profiler sees it."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    with profile(activities=activities) as profiler:
        time_block(run, first, 3)
    shares: dict[str, float] = defaultdict(float)
    for event in profiler.key_averages():
        spent = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        found = (kind for kind, names in KINDS.items() if any(n in event.key for n in names))
        shares[next(found, "other")] += spent
    total = sum(shares.values())
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    print("our step: " + ", ".join(f"{kind} {spent / total:.0%}" for kind, spent in ordered))


@click.command()
@click.option("--nanogpt", type=Path, required=True, help="A checkout of karpathy/nanoGPT.")
@click.option("--text", type=Path, required=True, help="A .txt file to train on.")
@click.option("--preset", default="nano", show_default=True)
@click.option("--dropout", default=0.0, show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option("--pairs", default=5, show_default=True)
@click.option("--steps", default=5, show_default=True, help="In each block of a pair.")
@click.option("--threads", default=0, help="Of the CPU; 0 leaves torch's choice.")
@click.option("--nanogpt-compile/--no-nanogpt-compile", default=None, help="Default: on a GPU.")
@click.option("-S", "settings", multiple=True, type=(str, str), help="A key and its value.")
def main(
    nanogpt: Path, text: Path, preset: str, dropout: float, device: str, pairs: int, steps: int,
    threads: int, nanogpt_compile: bool | None, settings: tuple[tuple[str, str], ...],
) -> None:  # fmt: skip
    """Print both speeds, their ratio, what our step consists of and the floor."""
    if threads:
        torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    words = text.read_text(encoding="utf-8")
    tokenizer = CharTokenizer.train(words)
    overrides: dict[str, Any] = {
        "vocab_size": tokenizer.size, "mixed_precision": True, "device": device,
        "deterministic": False, "architecture": "gpt2", "bias": False, "optimizer": "adamw",
        "learning_rate": 3e-4,
        **{key: yaml12.parse(f"{key}: {value}", name="-S")[key] for key, value in settings},
    }  # fmt: skip
    compiled = device == "cuda" if nanogpt_compile is None else nanogpt_compile
    module = load_nanogpt(nanogpt)

    def compare(rate: float) -> Comparison:
        config = get_config(preset, **overrides, dropout=rate).resolved()
        dataset = TokenDataset(tokenizer.encode(words), config.block_size)
        return Comparison(module, compiled, config, dataset)

    machine = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    print(f"torch {torch.__version__}, {device}: {machine}; {preset}, dropout {dropout:g}")
    compare_losses(compare(0.0))
    sides = compare(dropout)
    seconds, dtype = time_sides(sides, pairs, steps)
    release_memory()
    config = sides.config
    windows = config.batch_size * config.gradient_accumulation_steps
    floor = measure_floor(config, dtype, device, windows * config.block_size)
    print(f"our step is {seconds / floor:.2f} x the floor")


if __name__ == "__main__":
    main()
