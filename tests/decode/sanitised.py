"""Decode with every variant on a CPU, compiled with the compiler's checks of memory.

Run as a program under the address sanitizer, which ends it at the first wrong access.
"""

import os

import torch
from conftest import TINY
from variants import VARIANTS, warmed

from nanogpt2.config.config import get_config
from nanogpt2.decode.draw import Controls
from nanogpt2.decode_kernels.cpu import CompiledDecoder, CompiledWeights

SHAPES = [
    {"n_embd": 20, "n_head": 2, "vocab_size": 65, "block_size": 19},
    {"n_embd": 96, "n_head": 4, "block_size": 40, "n_layer": 1},
]
CONTROLS = [Controls(), Controls(0.7, 5, 0.9, 0.01, 1.2), Controls(0, repetition_penalty=2)]


def decode(variant: dict[str, object], shape: dict[str, int], rows: int) -> None:
    """Read prompts and windows, and go on to the end of the block, or past it."""
    model = warmed(get_config({**TINY, **variant, **shape})).eval()
    block_size, n_tokens = model.config.block_size, 50
    decoder = CompiledDecoder(CompiledWeights(model, n_tokens=n_tokens), rows=rows)
    idx = torch.randint(n_tokens, (rows, block_size))
    decoder.last_logits(idx)
    lengths = [1 + (7 * row) % (block_size - 3) for row in range(rows)]
    for row, length in enumerate(lengths):
        decoder.encode(idx[row, :length], row)
    positions = torch.tensor(lengths)
    room = block_size - max(lengths) + (20 if model.config.positions == "rotary" else 0)
    decoder.step(idx[:, 0], positions)
    seen = torch.zeros(rows, n_tokens, dtype=torch.bool)
    uniforms, drawn = torch.rand(rows, room).double(), torch.zeros(rows, room, dtype=torch.long)
    for controls in CONTROLS:
        positions = torch.tensor(lengths)
        decoder.go_on(idx[:, 0].clone(), positions, uniforms, controls, seen, drawn)


if __name__ == "__main__":
    torch.manual_seed(0)
    for variant in VARIANTS.values():
        decode(variant, SHAPES[0], rows=7)
    for name in ("gpt2", "modern, some"):
        decode(VARIANTS[name], SHAPES[1], rows=1)
    print("decoded", flush=True)
    os._exit(0)  # to take torch apart takes a second here
