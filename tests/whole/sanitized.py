"""Run every function of compiled C on odd shapes: `python sanitized.py LIBRARY ... ROWS`.

The last is train/distil/cpu.c, the others kernels/cpu.c; decode/kernels/cpu.c is compiled here,
for each model.
All are built with sanitizers, which end the process at the first wrong access.
"""

import ctypes
import itertools
import os
import sys

import torch
from every import some
from variants import VARIANTS, warmed

from nanogpt2.config.config import get_config
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.kernels.cpu import CompiledDecoder, CompiledWeights, as_struct
from nanogpt2.decode.kernels.cpu_library import DrawControls
from nanogpt2.decode.pages import Room
from nanogpt2.kernels.cpu.library import Library
from nanogpt2.train.distil.cpu import CompiledRows

DTYPES = torch.float32, torch.bfloat16
SMALL = {"device": "cpu", "n_layer": 2, "dropout": 0.0}
SHAPES = [
    {"n_embd": 20, "n_head": 2, "vocab_size": 65, "block_size": 19},
    {"n_embd": 96, "n_head": 4, "block_size": 40, "n_layer": 1},
]
CONTROLS = [Controls(), Controls(0.7, 5, 0.9, 0.01, 1.2), Controls(0, repetition_penalty=2)]


def run(library: Library) -> None:
    D = library.head_size
    for dtype, (H, G), T in itertools.product(DTYPES, [(1, 1), (3, 3), (4, 2)], [1, 15, 16, 33]):
        q, y = (torch.randn(2, T, H, D).to(dtype).transpose(1, 2) for _ in range(2))
        k, v = (torch.randn(2, T, G, D).to(dtype).transpose(1, 2) for _ in range(2))
        for rate in (0.0, 0.3):
            y, lse = library.attention(q, k, v, rate, 7)
            library.attention_gradients((q, k, v, y, lse), y.contiguous(), rate, 7)
        for normed in (True, False) if D % 2 == 0 else ():
            cos, sin = torch.randn(2, 1, T, D // 2)
            library.rotate(q, cos, sin, normed)
            library.rotate(q, cos, sin, normed, y)
    for dtype, n in itertools.product(DTYPES, [1, 5, 1023, 1024, 2050]):
        x = torch.randn(n).to(dtype)
        library.gelu(x)
        library.gelu(x, x)
        for rate in (0.0, 0.5):
            library.dropout_add(None, x, rate, 3, dtype)
            library.dropout_add(torch.randn(n), x, rate, 3, torch.float32)
    for dtype, (rows, C) in itertools.product(DTYPES, [(1, 1), (63, 7), (65, 40), (130, 17)]):
        x, weight = torch.randn(rows, C), torch.randn(C)
        library.rms_norm(x, weight, 1e-5, dtype)
        library.rms_norm_gradients(x, weight, torch.randn(rows, C).to(dtype), 1e-5)
    for dtype, (B, T, C), taps in itertools.product(
        DTYPES, [(1, 1, 1), (3, 5, 7), (2, 65, 17)], [2, 8]
    ):
        x, weight = torch.randn(B, T, C).to(dtype), torch.randn(taps, 1, C)
        library.mix_tokens(x, weight)
        library.mix_tokens(x, weight, x)


def run_rows(rows: CompiledRows) -> None:
    for (R, V, n), cap, t in itertools.product(
        [(1, 1, 1), (3, 16, 15), (5, 40, 33), (4, 70, 64)], (0.0, 3.0), (1.0, 2.0)
    ):
        total, losses = torch.empty(R, n), torch.empty(R)
        for width, add in ((n, False), (V, True)):
            rows.add_probabilities(total, torch.randn(R, width), cap, t, share=0.5, add=add)
        targets = torch.randint(-1, n, (R,))
        rows.replace_by_gradient(torch.randn(R, V), total, targets, losses, V, cap, 0.7, t)


def decode(
    variant: dict[str, object], shape: dict[str, int], rows: int, *, int8: bool = False
) -> None:
    """Read prompts and windows, and go on to the end of the block, or past it."""
    model = warmed(get_config({**SMALL, **variant, **shape})).eval()
    block_size, n_tokens = model.config.block_size, 50
    decoder = CompiledDecoder(CompiledWeights(model, n_tokens=n_tokens, int8=int8), rows=rows)
    idx = torch.randint(n_tokens, (rows, block_size))
    decoder.last_logits(idx)
    lengths = [1 + (7 * row) % (block_size - 3) for row in range(rows)]
    for row, length in enumerate(lengths):
        decoder.encode(idx[row, :length], row)
    decoder.read_on(idx[0], 0)
    mixed, places = torch.tensor([0, *range(rows)]), torch.tensor([0, 1, *lengths[1:]])
    each = (DrawControls * rows)(*(as_struct(CONTROLS[row % len(CONTROLS)]) for row in range(rows)))
    tokens, numbers = idx[0, : rows + 1].contiguous(), torch.rand(rows).double()
    decoder.read_and_draw(tokens, mixed, places, numbers, each)
    positions = torch.tensor(lengths)
    room = block_size - max(lengths) + (20 if model.config.positions == "rotary" else 0)
    decoder.step(idx[:, 0], positions)
    seen = torch.zeros(rows, n_tokens, dtype=torch.bool)
    uniforms, drawn = torch.rand(rows, room).double(), torch.zeros(rows, room, dtype=torch.long)
    for controls in CONTROLS:
        positions = torch.tensor(lengths)
        decoder.go_on(idx[:, 0].clone(), positions, uniforms, controls, seen, drawn)


def take_alone(room: Room, count: int, dtype: torch.dtype) -> torch.Tensor:
    """Return memory with nothing right beside it."""
    return torch.zeros(count, dtype=dtype)


if __name__ == "__main__":
    torch.set_num_threads(2)
    *libraries, rows = sys.argv[1:]
    for path in libraries:
        run(Library(ctypes.CDLL(path)))
    run_rows(CompiledRows(ctypes.CDLL(rows)))
    print("computed", flush=True)
    torch.manual_seed(0)
    setattr(Room, "take", take_alone)  # noqa: B010
    for name in some(VARIANTS, "gpt2", "modern, conv"):
        decode(VARIANTS[name], SHAPES[0], rows=7)
    for name in ("gpt2", "modern, some"):
        decode(VARIANTS[name], SHAPES[1], rows=1)
        decode(VARIANTS[name], SHAPES[0], rows=7, int8=True)
    print("decoded", flush=True)
    os._exit(0)  # to take torch apart takes a second here
