"""A text that is drawn beside others is what `generate` draws alone, whatever the others are."""

import random
from typing import Any

import pytest
import torch
from variants import warmed

from nanogpt2.config.config import Config, get_config
from nanogpt2.decode.decoder import MakeDecoder
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.ensemble.decoding import prepare, slides
from nanogpt2.decode.ensemble.ensemble import Ensemble, Model
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.generate import generate_tokens
from nanogpt2.sample.request import Request
from nanogpt2.serve.batching.batch import Batch
from nanogpt2.serve.batching.drawing import Drawing, Window
from nanogpt2.serve.batching.lanes import open_lanes

N_TOKENS = 50
VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "modern": {"architecture": "modern", "n_kv_head": 1},
    "qwen3": {"architecture": "qwen3"},
    "mixing": {"architecture": "modern", "mlp_conv": 4},
}
CONTROLS = [
    Controls(),
    Controls(temperature=0),
    Controls(temperature=1.7, top_k=20),
    Controls(temperature=0.6, top_p=0.8),
    Controls(min_p=0.1, repetition_penalty=1.5),
]


def make_model(tiny: Config, **changes: Any) -> GPT:
    return warmed(get_config({**tiny.to_dict(), **changes})).eval()


def open_batch(model: Model, make_decoder: MakeDecoder, *, rows: int, part: int) -> Batch:
    (lanes,) = open_lanes(model, make_decoder, rows=rows)
    if lanes.part is not None:
        lanes.part = part  # small, so that prompts are read in several
    window = Window(model.config.block_size, slides(model))
    return Batch(lanes, window, n_tokens=N_TOKENS)


def draw_mixed(batch: Batch, chance: random.Random, count: int) -> list[Drawing]:
    """Return texts that joined a batch at random, of which some were left before their end."""
    waiting = [make_drawing(chance) for _ in range(count)]
    over = []
    while waiting or batch.rows:
        while waiting and batch.free and chance.random() < 0.5:
            batch.join(waiting.pop())
        if not batch.rows:
            continue
        for drawing in batch.step():
            if drawing in batch.rows and chance.random() < 0.01:
                batch.leave(drawing)
            if drawing not in batch.rows:
                over.append(drawing)
    return over


def make_drawing(chance: random.Random) -> Drawing:
    prompt = chance.choices(range(N_TOKENS), k=chance.choice([1, 2, 5, 7, 13, 16, 30]))
    return Drawing(
        prompt,
        seed=chance.randrange(2**64),
        max_tokens=chance.choice([1, 3, 12, 40]),
        controls=chance.choice(CONTROLS),
        window=chance.choice(["exact", "half"]),
        logprobs=chance.choice([None, 0, 3]),
    )


def alone(model: Model, make_decoder: MakeDecoder, drawing: Drawing) -> list[int]:
    """Return what `generate` draws for the same seed and controls."""
    request = Request(
        [drawing.prompt],
        [drawing.seed],
        len(drawing.drawn),
        drawing.controls,
        window=drawing.window,
        n_tokens=N_TOKENS,
    )
    return torch.cat(list(generate_tokens(model, request, make_decoder)), dim=1)[0].tolist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_text_is_that_of_generate_in_any_company(tiny: Config, variant: str) -> None:
    model = make_model(tiny, **VARIANTS[variant])
    make_decoder = prepare(model, n_tokens=N_TOKENS)
    batch = open_batch(model, make_decoder, rows=7, part=6)
    texts = draw_mixed(batch, random.Random(variant), 60)
    assert len(texts) == 60
    for drawing in texts:
        assert drawing.drawn == alone(model, make_decoder, drawing)
    assert len(batch.free) == 7


def test_without_compiled_code_too(tiny: Config) -> None:
    model = make_model(tiny)
    make_decoder = prepare(model, n_tokens=N_TOKENS, quick=False)
    batch = open_batch(model, make_decoder, rows=3, part=6)
    for drawing in draw_mixed(batch, random.Random(1), 8):
        assert drawing.drawn == alone(model, make_decoder, drawing)


@pytest.mark.parametrize("variant", ["gpt2", "qwen3"])
def test_with_weights_of_8_bits_too(tiny: Config, variant: str) -> None:
    model = make_model(tiny, **VARIANTS[variant])
    make_decoder = prepare(model, n_tokens=N_TOKENS, int8=True)
    batch = open_batch(model, make_decoder, rows=7, part=6)
    for drawing in draw_mixed(batch, random.Random(variant), 30):
        assert drawing.drawn == alone(model, make_decoder, drawing)


@pytest.mark.parametrize("other", ["gpt2", "qwen3"])
def test_an_ensemble_too(tiny: Config, other: str) -> None:
    model = Ensemble([make_model(tiny, **VARIANTS[each]) for each in ("qwen3", other)])
    make_decoder = prepare(model, n_tokens=N_TOKENS)
    batch = open_batch(model, make_decoder, rows=3, part=6)
    for drawing in draw_mixed(batch, random.Random(other), 12):
        assert drawing.drawn == alone(model, make_decoder, drawing)


def test_how_likely_a_token_was_is_told(tiny: Config) -> None:
    model = make_model(tiny)
    batch = open_batch(model, prepare(model, n_tokens=N_TOKENS), rows=2, part=6)
    told = Drawing([1, 2, 3], 5, 4, Controls(temperature=0.5), logprobs=3)
    batch.join(told)
    other = Drawing([4], 6, 4, Controls())
    batch.join(other)
    for _ in range(4):
        assert batch.step() == [told, other]
        idx = torch.tensor([[*told.prompt, *told.drawn[:-1]]])
        with torch.no_grad():
            logprobs = model(idx)[0, -1, :N_TOKENS].log_softmax(dim=-1)
        likely, token = told.likely[-1], told.drawn[-1]
        assert likely.logprob == pytest.approx(float(logprobs[token]), abs=1e-4)
        assert [number for number, _ in likely.others] == logprobs.topk(3).indices.tolist()
    assert len(told.likely) == 4
    assert other.likely == []
