"""What a model loses by fewer bits a weight, found without data: on text that it writes itself."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from nanogpt2.decode.draw import Controls
from nanogpt2.model.gpt import GPT
from nanogpt2.model.modes import evaluating
from nanogpt2.sample.generate import generate_tokens
from nanogpt2.sample.request import Request
from nanogpt2.serve.playground.weights import as_packed

ROWS, LONGEST = 8, 256  # texts, tokens in each
GREEDY = 200  # tokens
SEED = 1337


@dataclass(frozen=True)
class Cost:
    """What a text costs more in nats per token, and how far the greedy text stays the same."""

    nats: float  # the mean Kullback-Leibler divergence from the model's own probabilities
    greedy_tokens: int
    greedy_equal: int  # of these, before the first that differs


def with_bits(model: GPT, bits: int) -> GPT:
    """Return a copy of `model` whose weights have the values that `bits` a number keep."""
    other = copy.deepcopy(model)
    other.load_state_dict(as_packed(model.state_dict(), bits=bits))
    return other


@torch.no_grad()
def measure_cost(model: GPT, other: GPT, *, start: list[int], n_tokens: int) -> Cost:
    """Return what `other` in place of `model` costs, in texts that go on from `start`."""
    length = max(2, min(LONGEST, model.config.block_size))
    with evaluating(model), evaluating(other):
        texts = continue_from(model, start, length, Controls(), rows=ROWS, n_tokens=n_tokens)
        likely, found = (
            each(texts[:, -model.config.block_size :])[..., :n_tokens].double().log_softmax(dim=-1)
            for each in (model, other)
        )
        nats = (likely.exp() * (likely - found)).sum(dim=-1).mean().item()
        ours, theirs = (
            continue_from(each, start, GREEDY, Controls(temperature=0), rows=1, n_tokens=n_tokens)
            for each in (model, other)
        )
    differing = (ours != theirs).flatten().nonzero()
    return Cost(max(0.0, nats), GREEDY, int(differing[0]) if len(differing) else GREEDY)


def continue_from(
    model: GPT, start: list[int], count: int, controls: Controls, *, rows: int, n_tokens: int
) -> Tensor:
    """Return `count` tokens that go on from `start`, in `rows` texts: (rows, count)."""
    seeds = range(SEED, SEED + rows)
    request = Request([start] * rows, seeds, count, controls, n_tokens=n_tokens)
    return torch.cat(list(generate_tokens(model, request)), dim=1)
