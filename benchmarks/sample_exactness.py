"""Greedy texts through the cache against greedy texts without one, on random prompts.

    python benchmarks/sample_exactness.py --checkpoint checkpoints/best_model.pt

Prompts have 1 to block_size + 32 tokens, in batches of unequal lengths, so that texts begin before
and after the end of the block. Where two texts differ, the gap says how close the two best tokens
were at the first difference, in nats.
"""

from pathlib import Path

import click
import torch

from nanogpt2.decode.draw import Controls
from nanogpt2.model.checkpoint import load_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.generate import generate_tokens
from nanogpt2.sample.request import Request

BATCH = 50


def greedy(model: GPT, prompts: list[list[int]], tokens: int, *, use_cache: bool) -> torch.Tensor:
    """Return the greedy continuation of each prompt, (B, tokens)."""
    controls = Controls(temperature=0)
    request = Request(prompts, range(len(prompts)), tokens, controls, use_cache=use_cache)
    return torch.cat(list(generate_tokens(model, request)), dim=1)


def best_gap(model: GPT, text: list[int]) -> float:
    """Return how far apart the two best logits after `text` are."""
    with torch.no_grad():
        best = model(torch.tensor([text[-model.config.block_size :]]))[0, -1].topk(2).values
    return float(best[0] - best[1])


@click.command()
@click.option("--checkpoint", type=Path, required=True)
@click.option("--prompts", "count", default=1000, show_default=True)
@click.option("--tokens", default=32, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(checkpoint: Path, count: int, tokens: int, seed: int) -> None:
    """Print how many of the texts are identical."""
    loaded = load_checkpoint(checkpoint, device=torch.device("cpu"))
    model = loaded.model
    n_tokens = loaded.tokenizer.size if loaded.tokenizer else model.config.vocab_size
    generator = torch.Generator().manual_seed(seed)
    same = 0
    for _ in range(0, count, BATCH):
        lengths = torch.randint(1, model.config.block_size + 33, (BATCH,), generator=generator)
        prompts = [
            torch.randint(n_tokens, (n,), generator=generator).tolist() for n in lengths.tolist()
        ]
        cached = greedy(model, prompts, tokens, use_cache=True)
        plain = greedy(model, prompts, tokens, use_cache=False)
        for prompt, ours, theirs in zip(prompts, cached.tolist(), plain.tolist(), strict=True):
            if ours == theirs:
                same += 1
                continue
            at = next(i for i in range(tokens) if ours[i] != theirs[i])
            print(f"prompt of {len(prompt)}, token {at}: gap {best_gap(model, prompt + ours[:at])}")
    print(f"{same} of {count} texts of {tokens} tokens are identical")


if __name__ == "__main__":
    main()
