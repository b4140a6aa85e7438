"""Sampling with weights of 8 bits: tokens per second beside others', and what it costs in loss.

    python benchmarks/int8.py --nanogpt PATH --threads 1        # GPT-2 124M, random weights
    python benchmarks/int8.py --checkpoint checkpoints/best_model.pt --text text.txt

The first draws greedy texts in turn with 32 bits, with 8, with CTranslate2's int8 (ctranslate2 and
transformers bring it), and with nanoGPT of the checkout PATH. The floor is the time in which the
weights come through the memory once; MBU is the share of the memory's speed in use (memory.py). The
second predicts each token of a text once, from windows of block_size side by side, through the
decoder's cache, with 32 bits and with 8.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import torch
import torch.nn.functional as F
from nanogpt import load_nanogpt, make_theirs

from nanogpt2.config.config import get_config
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.kernels.choose import prepare
from nanogpt2.model.checkpoint import load_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.bandwidth import measure_bandwidth, utilization
from nanogpt2.sample.generate import generate
from nanogpt2.text.reading.corpus import read_corpus

Draw = Callable[[int], object]  # draws so many tokens after a prompt of one
ROWS = 32  # windows that are read side by side


def make_ours(model: GPT, *, int8: bool) -> Draw:
    """Return what draws with our decoder; packing the weights is not timed."""
    make, idx = prepare(model, int8=int8), torch.zeros(1, 1, dtype=torch.long)
    greedy = Controls(temperature=0)
    return lambda n: generate(model, idx, n, controls=greedy, seed=0, make_decoder=make)


def make_ctranslate2(model: GPT, threads: int) -> Draw | None:
    """Return what draws with CTranslate2, on random weights of the same shape, or None."""
    try:
        import ctranslate2
        from ctranslate2.converters.transformers import GPT2Loader
        from transformers import GPT2Config, GPT2LMHeadModel
    except ImportError:
        return None
    size = model.config.vocab_size
    spec = GPT2Loader().get_model_spec(GPT2LMHeadModel(GPT2Config(vocab_size=size)).eval())
    spec.register_vocabulary([*(f"t{i}" for i in range(size - 3)), "<unk>", "<s>", "</s>"])
    spec.validate()
    spec.optimize(quantization="int8")
    with TemporaryDirectory() as folder:
        spec.save(folder)
        theirs = ctranslate2.Generator(folder, compute_type="int8", intra_threads=threads)
    return lambda n: theirs.generate_batch(
        [["t0"]], max_length=n, min_length=n, sampling_topk=1, include_prompt_in_result=False
    )


def make_nanogpt(model: GPT, path: Path) -> Draw:
    """Return what draws with nanoGPT."""
    theirs = make_theirs(load_nanogpt(path), model).eval()
    idx = torch.zeros(1, 1, dtype=torch.long)
    return lambda n: theirs.generate(idx, n, top_k=1)


def compare_speeds(nanogpt: Path | None, threads: int, tokens: int, repeats: int) -> None:
    """Print the medians of all sides, which take turns."""
    model = GPT(get_config("base", architecture="gpt2", vocab_size=50257, dropout=0.0)).eval()
    sides = {"float32": make_ours(model, int8=False), "int8": make_ours(model, int8=True)}
    if theirs := make_ctranslate2(model, threads):
        sides["CTranslate2 int8"] = theirs
    if nanogpt:
        sides["nanoGPT"] = make_nanogpt(model, nanogpt)
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    bandwidths = []
    for draw in sides.values():
        draw(4)
    for _ in range(repeats):
        bandwidths.append(measure_bandwidth("cpu"))
        for name, draw in sides.items():
            start = time.perf_counter()
            draw(tokens)
            speeds[name].append(tokens / (time.perf_counter() - start))
    weights, bandwidth = sum(each.numel() for each in model.factors()), max(bandwidths)
    print(f"memory: {bandwidth / 1e9:.1f} GB/s; {weights:,} weights, {tokens} tokens")
    for name, values in speeds.items():
        speed = statistics.median(values)
        size = weights * (1 if "int8" in name else 4)
        ratio = statistics.median(a / b for a, b in zip(speeds["int8"], values, strict=True))
        print(
            f"{name:17} {speed:6.1f} tokens/s   floor {bandwidth / size:5.0f}"
            f"   {utilization(speed, size, bandwidth)}   int8 is {ratio:5.2f} x"
        )


@torch.no_grad()
def compare_losses(checkpoint: Path, text: Path, most: int) -> None:
    """Print the losses of the text with 32 bits and with 8."""
    loaded = load_checkpoint(checkpoint, device="cpu")
    model = loaded.model.eval()
    assert loaded.tokenizer is not None
    size = model.config.block_size
    tokens = torch.from_numpy(loaded.tokenizer.encode(read_corpus(text)[0]).astype("int64"))
    windows = min((len(tokens) - 1) // size, max(most // size, 1))
    idx, targets = (tokens[n : n + windows * size].view(windows, size) for n in (0, 1))
    losses = [read(partial(prepare, model), idx, targets, int8=int8) for int8 in (False, True)]
    print(
        f"{targets.numel():,} tokens: {losses[0]:.6f} nats with 32 bits, {losses[1]:.6f} with 8:"
        f" {losses[1] / losses[0] - 1:+.4%}"
    )


def read(
    make: Callable[..., Callable[..., object]],
    idx: torch.Tensor,
    targets: torch.Tensor,
    *,
    int8: bool,
) -> float:
    """Return the mean loss of `targets` after `idx`, both (windows, T)."""
    total = 0.0
    for some, following in zip(torch.split(idx, ROWS), torch.split(targets, ROWS), strict=True):
        decoder = make(int8=int8)(rows=len(some))
        for at in range(some.shape[1]):
            positions = torch.full((len(some),), at)
            logits = decoder.step(some[:, at].contiguous(), positions)  # type: ignore[attr-defined]
            total += F.cross_entropy(logits, following[:, at], reduction="sum").item()
    return total / targets.numel()


@click.command()
@click.option("--nanogpt", type=Path, help="A checkout of karpathy/nanoGPT.")
@click.option("--threads", default=1, show_default=True)
@click.option("--tokens", default=64, show_default=True, help="Of each text.")
@click.option("--repeats", default=7, show_default=True)
@click.option("--checkpoint", type=Path, help="A model file: compare losses instead.")
@click.option("--text", type=Path, help="Whose loss is compared.")
@click.option("--most", default=200_000, show_default=True, help="Tokens of it at most.")
def main(
    nanogpt: Path | None,
    threads: int,
    tokens: int,
    repeats: int,
    checkpoint: Path | None,
    text: Path | None,
    most: int,
) -> None:
    """Compare speeds, or losses where a checkpoint and a text are given."""
    torch.set_num_threads(threads)
    if checkpoint and text:
        compare_losses(checkpoint, text, most)
    else:
        compare_speeds(nanogpt, threads, tokens, repeats)


if __name__ == "__main__":
    main()
