"""Guessed tokens that are checked several at once: how many more a second, and that none differs.

    python benchmarks/drafts.py                                       # random GPT-2 124M
    python benchmarks/drafts.py --checkpoint model.pt --text text.txt --prompts 1000

Texts are drawn in turn with and without guesses, greedily and at temperature 1, on one thread; of a
checkpoint the prompts are passages of the text, spread over it. A random or a barely trained model
that is greedy soon repeats itself: that is the repetitive text; at temperature 1 hardly any guess
comes true: that is the other end.
"""

import statistics
import time
from pathlib import Path

import click
import torch

from nanogpt2.config.config import get_config
from nanogpt2.decode.decoder import MakeDecoder
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.kernels.choose import prepare
from nanogpt2.model.checkpoint import load_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.generate import generate_tokens
from nanogpt2.sample.request import Request
from nanogpt2.text.reading.corpus import read_corpus

PROMPT = 48  # tokens


def draw(
    model: GPT, make: MakeDecoder, prompt: list[int], seed: int, tokens: int, *,
    temperature: float, drafts: bool,
) -> tuple[list[int], float]:  # fmt: skip
    """Return the tokens that follow `prompt`, and the seconds that drawing them took."""
    request = Request([prompt], [seed], tokens, Controls(temperature), window="half", drafts=drafts)
    start = time.perf_counter()
    text = torch.cat(list(generate_tokens(model, request, make)), dim=1)
    return text[0].tolist(), time.perf_counter() - start


def compare(
    model: GPT, prompts: list[list[int]], tokens: int, *, temperature: float, int8: bool
) -> None:
    """Print in how many prompts the texts are the same, and the speeds."""
    make, same = prepare(model, int8=int8), 0
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for number, prompt in enumerate(prompts):
        texts = []
        for drafts in (True, False):
            text, taken = draw(
                model, make, prompt, number, tokens, temperature=temperature, drafts=drafts
            )
            texts.append(text)
            seconds[drafts].append(taken)
        same += texts[0] == texts[1]
    ratios = [a / b for a, b in zip(seconds[False], seconds[True], strict=True)]
    speeds = [tokens / statistics.median(seconds[drafts]) for drafts in (True, False)]
    print(
        f"{'int8' if int8 else 'float32':7} temperature {temperature:g}: the same text in"
        f" {same} of {len(prompts)}; {speeds[0]:.0f} tokens/s for {speeds[1]:.0f}, ratios"
        f" {min(ratios):.2f} {statistics.median(ratios):.2f} {max(ratios):.2f}, of all"
        f" {sum(seconds[False]) / sum(seconds[True]):.2f}",
        flush=True,
    )


@click.command()
@click.option("--checkpoint", type=Path, help="A model file, instead of random weights.")
@click.option("--text", type=Path, help="Where prompts are from.")
@click.option("--prompts", default=5, show_default=True)
@click.option("--tokens", default=200, show_default=True)
def main(checkpoint: Path | None, text: Path | None, prompts: int, tokens: int) -> None:
    """Print a line for each precision and temperature."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if checkpoint and text:
        loaded = load_checkpoint(checkpoint, device="cpu")
        model, tokenizer = loaded.model.eval(), loaded.tokenizer
        assert tokenizer is not None
        all_tokens = tokenizer.encode(read_corpus(text)[0])
        step = (len(all_tokens) - PROMPT) // prompts
        given = [all_tokens[n * step : n * step + PROMPT].tolist() for n in range(prompts)]
    else:
        model = GPT(get_config("base", architecture="gpt2", vocab_size=50257, dropout=0.0)).eval()
        given = torch.randint(50257, (prompts, PROMPT)).tolist()
    for int8 in (False, True):
        for temperature in (0.0, 1.0):
            compare(model, given, tokens, temperature=temperature, int8=int8)


if __name__ == "__main__":
    main()
