"""`model.generate` draws what the model draws without a cache, seed for seed."""

import pytest
import torch
from torch import Tensor
from variants import VARIANTS, warmed

from nanogpt2.base.system.errors import DataError
from nanogpt2.config.config import Config, get_config
from nanogpt2.decode.draw import draw_token
from nanogpt2.model.gpt import GPT


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest, tiny: Config) -> GPT:
    return warmed(get_config({**tiny.to_dict(), **VARIANTS[request.param]}))


def draw_plainly(
    model: GPT, idx: Tensor, count: int, *, top_k: int | None, n_tokens: int | None, seed: int
) -> Tensor:
    """Return `idx` followed by tokens, for each of which the whole window is read."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        logits = model(idx[:, -16:])[:, -1, :n_tokens]
        token = draw_token(logits, temperature=0.9, top_k=top_k, generator=generator)
        idx = torch.cat([idx, token], dim=1)
    return idx


@pytest.mark.parametrize(
    ("length", "count"), [(1, 20), (15, 0), (15, 2), (16, 1), (16, 3), (20, 9)]
)  # up to the end of the block, past it, and from beyond it
def test_a_seed_draws_what_it_draws_without_a_cache(model: GPT, length: int, count: int) -> None:
    idx = torch.randint(50, (3, length))
    knobs = {"top_k": 40, "n_tokens": 50}
    drawn = model.generate(idx, count, 0.9, generator=torch.Generator().manual_seed(count), **knobs)
    assert torch.equal(drawn, draw_plainly(model, idx, count, seed=count, **knobs))


def test_the_mode_of_a_model_outlives_an_error(tiny: Config) -> None:
    model = GPT(tiny).train()
    model.generate(torch.zeros(1, 1, dtype=torch.long), 9)
    assert model.training
    with pytest.raises(DataError, match="found the token 64; allowed: from 0 to 63"):
        model.generate(torch.tensor([[64]]), 9)  # of 64 tokens
    assert model.training
