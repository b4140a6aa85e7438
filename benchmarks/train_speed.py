"""Tokens per second of training, in turn with nanoGPT: same weights, batches and optimizer.

    python benchmarks/train_speed.py --nanogpt PATH --text FILE --preset nano --dropout 0.1
    python benchmarks/train_speed.py --nanogpt PATH --text FILE --preset base --device cuda \\
        -S batch_size 64 -S gradient_accumulation_steps 1 -S vocab_size 50304

PATH is a checkout of karpathy/nanoGPT. Each side runs as it is quickest: nanoGPT's training step
in float32 on a CPU, as its train.py has it, and on a GPU in bfloat16 with torch.compile and the
fused AdamW; ours with `mixed_precision: true`. The model is GPT-2 without biases, trained by AdamW.
First both train without dropout from the same weights on the same batches, and their losses are
compared; then blocks of steps are timed in turn. The floor is the time of the step's matrix
products alone, and of its weights through the memory.
"""

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
import torch
from nanogpt import load_nanogpt, make_theirs
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from nanogpt2.config import yaml12
from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import TokenDataset, draw_windows
from nanogpt2.tokens.tokenizer import CharTokenizer
from nanogpt2.train.optimizer import learning_rate_factor
from nanogpt2.train.step import Stepper

Step = Callable[[int], Tensor]  # trains on the batch of a step, and returns its loss
LOSS_TOLERANCE = 0.005  # bfloat16 against float32, after CHECKED_STEPS
CHECKED_STEPS = 20
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
    tokens, parts = (
        torch.from_numpy(dataset.tokens.astype("int64")),
        config.gradient_accumulation_steps,
    )

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
        windows = draw_windows(len(dataset), config.batch_size * parts, seed=config.seed, step=step)
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


def compare_losses(ours: Step, theirs: Step) -> None:
    """Print the losses of both sides on the same batches; end where they differ."""
    pairs = [(ours(step).item(), theirs(step).item()) for step in range(CHECKED_STEPS)]
    apart = max(abs(mine - other) / other for mine, other in pairs)
    print(f"losses: {pairs[0][0]:.4f} and {pairs[0][1]:.4f} before the first step,", end=" ")
    print(f"{pairs[-1][0]:.4f} and {pairs[-1][1]:.4f} after {CHECKED_STEPS}; apart by {apart:.2%}")
    if apart > LOSS_TOLERANCE:
        raise click.ClickException("the two sides do not compute the same")


def measure_floor(config: Config, dtype: torch.dtype, device: str, tokens: int) -> float:
    """Return the seconds of a step's matrix products, and of its weights through the memory.

    Attention's products are counted at the rate of the others, the masked half left out.
    """
    model = GPT(config)
    shapes: dict[tuple[int, int], int] = defaultdict(int)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            shapes[module.in_features, module.out_features] += 1
    if config.tied_head:
        shapes[config.n_embd, config.vocab_size] += 1
    seconds = operations = 0.0
    repeats = 50 if device == "cuda" else 3  # back to back, or launching them is what is measured
    for (wide, high), count in shapes.items():
        x, y = (torch.randn(tokens, n, device=device, dtype=dtype) for n in (wide, high))
        weight = torch.randn(high, wide, device=device, dtype=dtype)
        for factors in ((x, weight.t()), (y, weight), (y.t(), x)):
            torch.mm(*factors)
            times = [time_block(lambda _: torch.mm(*factors), 0, repeats) for _ in range(5)]  # noqa: B023
            seconds += count * statistics.median(times)
        operations += count * 6 * tokens * wide * high
    attention = 3.5 * 2 * config.n_layer * config.n_embd * config.block_size * tokens
    seconds += attention / (operations / seconds)
    block = torch.ones(2**26, device=device)
    copies = [time_block(lambda step: block.add_(1)[0], 0, 3) for _ in range(5)]
    bandwidth = 2 * block.numel() * 4 / statistics.median(copies)
    weights = sum(p.numel() for p in model.parameters())
    moved = (
        weights * 4 * 9 / bandwidth
    )  # AdamW reads 4 and writes 3 numbers; backward writes, clipping reads
    print(
        f"floor: {(operations + attention) / 1e9:,.0f} billion operations at"
        f" {operations / seconds / 1e9:,.0f} GFLOP/s: {seconds * 1e3:.1f} ms;"
        f" {weights * 4 / 1e6:.1f} MB of weights nine times at {bandwidth / 1e9:.0f} GB/s:"
        f" {moved * 1e3:.1f} ms"
    )
    return seconds + moved


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
    """Print both speeds, their ratio, the floor and what our step consists of."""
    if threads:
        torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    words = text.read_text(encoding="utf-8")
    tokenizer = CharTokenizer.train(words)
    overrides: dict[str, Any] = {
        "vocab_size": tokenizer.size, "mixed_precision": True, "device": device,
        "deterministic": False, "architecture": "gpt2", "bias": False, "optimizer": "adamw",
        "learning_rate": 1e-3,
        **{key: yaml12.parse(f"{key}: {value}", name="-S")[key] for key, value in settings},
    }  # fmt: skip
    config = get_config(preset, **overrides, dropout=dropout).resolved()
    dataset = TokenDataset(tokenizer.encode(words), config.block_size)
    module = load_nanogpt(nanogpt)
    compiled = device == "cuda" if nanogpt_compile is None else nanogpt_compile

    def make_pair(rate: float) -> tuple[Stepper, Step, Step]:
        case = get_config(preset, **overrides, dropout=rate).resolved()
        model = GPT(case)
        theirs = make_nanogpt_step(make_theirs(module, model), case, dataset, compiled)
        stepper = Stepper(model, case)
        return stepper, lambda step: stepper.step(dataset, step).figures[0], theirs

    machine = (
        torch.cuda.get_device_name() if device == "cuda" else f"{torch.get_num_threads()} threads"
    )
    print(f"torch {torch.__version__}, {device}: {machine}; {preset}, dropout {dropout:g}")
    compare_losses(*make_pair(0.0)[1:])
    stepper, ours, theirs = make_pair(dropout)
    tokens = stepper.windows_per_step * config.block_size
    for run in (ours, theirs):
        time_block(run, 0, 6)
    times = []
    for pair in range(pairs):
        first = 6 + pair * steps
        order = [(0, ours), (1, theirs)][:: 1 if pair % 2 else -1]
        found = {side: time_block(run, first, steps) for side, run in order}
        times.append((found[0], found[1]))
    mine, other = (statistics.median(pair[side] for pair in times) for side in (0, 1))
    ratio = statistics.median(other / mine for mine, other in times)
    floor = measure_floor(config, stepper.dtype, device, tokens)
    for name, seconds in (("nanoGPT2", mine), ("nanoGPT", other)):
        print(f"{name:8} {seconds * 1e3:8.1f} ms a step, {tokens / seconds:11,.0f} tokens/s")
    print(
        f"ratio {ratio:.2f} (median of {pairs} pairs); our step is {mine / floor:.1f} x the floor"
    )
    print_shares(ours, device, 6 + pairs * steps)
    assert math.isfinite(ratio)


if __name__ == "__main__":
    main()
