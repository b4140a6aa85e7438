"""Memory: what a training step needs, what the machine has, and what would fit."""

from collections.abc import Callable
from dataclasses import replace

import torch

from nanogpt2.config.config import Config, get_config
from nanogpt2.device.memory import available_bytes
from nanogpt2.model.shapes import make_shapes

SIZES = ("nano", "small", "base")  # the presets that stand for a size
BYTES_PER_WEIGHT = 16  # float32 weight and gradient, and AdamW's two moments


def count_weights(config: Config) -> int:
    """Return the number of weights of the model that `config` describes."""
    return make_shapes(config).count_parameters()


def step_bytes(config: Config, batch_size: int) -> int:
    """Estimate the bytes of one training step: weights, optimizer, and what backward keeps.

    A block keeps about 17 vectors of n_embd for each token (two norms, q k v, attention, twice
    the four-fold MLP, the residual stream), more with dropout; the head keeps three rows of logits.
    """
    width = 4 if config.resolved().precision == "fp32" else 2
    vectors = 18 if config.mlp_conv else 17  # what is mixed is kept too
    per_layer = (vectors * width + (3 if config.dropout else 0)) * config.n_embd
    per_token = config.n_layer * per_layer + 3 * 4 * config.vocab_size
    if config.dropout:  # attention weights are kept only where dropout acts on them
        per_token += 2 * width * config.n_layer * config.n_head * config.block_size
    return count_weights(config) * BYTES_PER_WEIGHT + batch_size * config.block_size * per_token


def what_fits(config: Config, available: int) -> str:
    """Say in words what would fit into `available` bytes: a batch, a context, or a preset."""

    def fits(candidate: Config, batch_size: int = 1) -> bool:
        return step_bytes(candidate, batch_size) < 0.9 * available

    batch_size = _largest(config.batch_size, lambda size: fits(config, size))
    if batch_size:
        return f"batch_size {batch_size}"
    block_size = _largest(config.block_size, lambda size: fits(replace(config, block_size=size)))
    if block_size:
        return f"block_size {block_size} with batch_size 1"
    presets = {name: get_config(name, vocab_size=config.vocab_size) for name in SIZES}
    names = [name for name, preset in presets.items() if fits(preset)]
    return f"the preset {names[-1]}" if names else "no preset"


def _largest(limit: int, fits: Callable[[int], bool]) -> int:
    """Return the largest of limit, limit/2, limit/4 ... that fits, or 0."""
    while limit and not fits(limit):
        limit //= 2
    return limit


def describe_shortage(config: Config, device: torch.device) -> str:
    """Return one line for a run of which not even one sequence fits into memory."""
    available = available_bytes(device)
    beside = f", beside {len(config.teachers)} teachers," if config.teachers else ""
    return (
        f"out of memory on {device.type} even with one sequence: {count_weights(config):,}"
        f" parameters{beside} need about {_gib(step_bytes(config, 1))}, and there are"
        f" {_gib(available)}; what fits by this estimate: {what_fits(config, available)}"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
