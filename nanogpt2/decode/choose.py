"""Whether a GPU decodes with kernels: where each computes what the model's modules do.

They are compared once for each shape of model. What is wrong is named on stderr, and torch serves.
"""

import sys
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nanogpt2.decode.decoder import Decoder, ModuleDecoder
from nanogpt2.decode.draw import draw_tokens
from nanogpt2.model.check import find_fault
from nanogpt2.model.gpt import GPT

Shape: TypeAlias = tuple[tuple[str, Any], ...]
"""The keys of a configuration on which kernels depend."""

VARIANT = (
    *("n_embd", "n_head", "n_kv_head", "positions", "norm", "qk_norm", "mlp"),
    *("tied_head", "bias", "logit_softcap"),
)
MOST = {"vocab_size": 8192, "block_size": 160}  # more of them take no other kernels
MOST_ROWS = 48


def runs_kernels(weight: Tensor) -> bool:
    """Return whether the kernels of `decode.gpu` may run where `weight` is, with its dtype."""
    dtypes = (torch.float32, torch.bfloat16, torch.float16)
    return weight.is_cuda and weight.dtype in dtypes and kernels_work(weight.device)


@cache
def kernels_work(device: torch.device) -> bool:
    """Return whether Triton is there, and compiles for `device`."""
    if torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        from nanogpt2.decode import gpu  # noqa: F401  # slow, and Triton is not everywhere
    except ImportError:
        say("note: Triton is not installed: decoding goes on with torch's operators, more slowly")
        return False
    return True


def choose_draw(weight: Tensor) -> Callable[..., Tensor]:
    """Return the quickest `draw_tokens` where `weight` (V, C) is."""
    if runs_kernels(weight) and draw_works(weight.device, len(weight)):
        from nanogpt2.decode.gpu import draw_fused

        return draw_fused
    return draw_tokens


def choose_decoder(model: GPT, *, rows: int, n_tokens: int | None) -> Decoder:
    """Return a decoder of `rows` samples: with kernels, or with the model's modules."""
    weight, shape = model.wte.weight, shape_of(model)
    if not decoder_works(shape, weight.device, weight.dtype, at_most(MOST_ROWS, rows)):
        return ModuleDecoder(model, rows=rows, n_tokens=n_tokens)
    from nanogpt2.decode.gpu import FusedDecoder

    return FusedDecoder(model, rows=rows, n_tokens=n_tokens)


def shape_of(model: GPT) -> Shape:
    """Return the shape of a small model that takes the kernels of `model`."""
    same = ((name, getattr(model.config, name)) for name in VARIANT)
    sizes = ((name, at_most(most, getattr(model.config, name))) for name, most in MOST.items())
    return ("n_layer", 1), *same, *sizes


def at_most(most: int, size: int) -> int:
    """Return `size`, or about `most`: that 16 divides a size is compiled into a kernel."""
    return min(size, most + size % 16)


@cache
def draw_works(device: torch.device, n_logits: int) -> bool:
    """Return whether the draw's kernels draw from so many logits what `draw_tokens` does."""
    from nanogpt2.decode.gpu_trials import try_draw

    return is_right("draw", find_fault(lambda: try_draw(device, n_logits)))


@cache
@torch.no_grad()
def decoder_works(shape: Shape, device: torch.device, dtype: torch.dtype, rows: int) -> bool:
    """Return whether each kernel of a step computes what the modules of such a model do."""
    from nanogpt2.decode.gpu_trials import TRIALS, Trial

    trial = Trial(dict(shape), device, dtype, rows)
    faults = ((name, find_fault(lambda: attempt(trial))) for name, attempt in TRIALS.items())  # noqa: B023
    return all(is_right(name, fault) for name, fault in faults)


def is_right(name: str, fault: str | None) -> bool:
    """Return whether there is no fault; say it where there is."""
    if fault is not None:
        say(f"note: {name}: {fault}: decoding goes on with torch's operators, more slowly")
    return fault is None


@cache
def say(line: str) -> None:
    """Print `line` on stderr, once in a process."""
    print(line, file=sys.stderr)
