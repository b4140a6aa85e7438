"""Trials of what decodes: what compiled code makes of random numbers, and what torch makes of them.

Those of single kernels of a GPU stand in gpu_trials.py.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from nanogpt2.config.config import complete
from nanogpt2.decode.draw import Controls, Drawn, draw_tokens, note_tokens
from nanogpt2.decode.kernels.cpu import CompiledDecoder, CompiledWeights
from nanogpt2.decode.kernels.int8 import rounded_logits
from nanogpt2.kernels.checks.samples import Pair
from nanogpt2.model.gpt import GPT

SMALL = {"n_layer": 2, "vocab_size": 67, "block_size": 9}
TOLERANCE = 1e-4  # of the largest logit: sums in another order
INT8_TOLERANCE = 0.05  # an input that another order of sums rounds to the next whole number
DRAWN_ROWS = 40
CONTROLS = (
    Controls(),
    Controls(temperature=0.7),
    Controls(temperature=0),
    Controls(top_k=5, top_p=0.9, min_p=0.01, repetition_penalty=1.2),
)


def try_compiled(shape: Mapping[str, Any], *, int8: bool = False) -> Iterator[Pair]:
    """Try cpu.c: a prompt and a step of a small model with the keys and values of `shape`.

    With `int8` its weights have 8 bits.
    """
    model = GPT(complete({**shape, **SMALL})).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.3, generator=generator)
    idx = torch.randint(SMALL["vocab_size"], (SMALL["block_size"],), generator=generator)
    decoder = CompiledDecoder(CompiledWeights(model, n_tokens=None, int8=int8), rows=1)
    expected = (rounded_logits(model, idx[None]) if int8 else model(idx[None]))[0]
    tolerance = INT8_TOLERANCE if int8 else TOLERANCE
    yield decoder.encode(idx[:-1], 0), expected[-2], tolerance
    last = torch.tensor([len(idx) - 1])
    yield decoder.step(idx[-1:], last)[0], expected[-1], tolerance


def try_draw(draw: Callable[..., Tensor], device: torch.device, n_logits: int) -> Iterator[Pair]:
    """Try drawing tokens from `n_logits` each: they are the same, every one."""
    generator = torch.Generator(device).manual_seed(1)
    rows = torch.empty(DRAWN_ROWS, n_logits, device=device).normal_(0.0, 2.0, generator=generator)
    uniforms = torch.rand(DRAWN_ROWS, 2, dtype=torch.float64, generator=generator, device=device)
    seen, last = rows > 1, torch.ones(1, dtype=torch.long, device=device)
    for controls in CONTROLS:
        given, column = (rows.clone(), uniforms, controls), last if controls.top_k else None
        found = draw(*given, seen=seen.clone(), column=column)
        yield found, draw_tokens(*given, seen=seen, column=column), 0.0


def try_note(note: Callable[[Tensor, Drawn], None], device: torch.device) -> Iterator[Pair]:
    """Try taking note of tokens, twice: all numbers are the same."""
    numbers = torch.arange(DRAWN_ROWS, device=device)
    found, expected = (
        Drawn(numbers + 0, 2 * numbers, numbers.new_zeros(DRAWN_ROWS, 4), *(numbers[1:3, None] + 0))
        for _ in range(2)
    )
    for tokens in (3 * numbers, 5 * numbers):
        note(tokens, found)
        note_tokens(tokens, expected)
    yield from ((each, vars(expected)[name], 0.0) for name, each in vars(found).items())
