"""Which operators a device trains with."""

from collections.abc import Callable

import torch

from nanogpt2.base.errors import DeviceError
from nanogpt2.config.config import Config
from nanogpt2.kernels.cpu import compile_operators
from nanogpt2.model.operators import TORCH, Operators


def find_operators(
    config: Config, device: torch.device, *, say: Callable[[str], None]
) -> Operators:
    """Return the fastest operators that `device` has, which may be torch's; `say` is told why.

    DeviceError where `config` asks for fp8 and there are none.
    """
    if not config.compile:
        return TORCH
    try:
        if device.type == "cpu":
            return compile_operators(config.n_embd // config.n_head)
        if device.type == "cuda":
            return _fuse_operators(config, device)
    except DeviceError as error:
        if config.precision == "fp8":
            raise DeviceError(f"precision: found fp8: {error}; use auto or bf16") from error
        say(f"note: {error}: training goes on with torch's operators, more slowly")
    return TORCH


def _fuse_operators(config: Config, device: torch.device) -> Operators:
    """Return the kernels of a GPU; DeviceError where Triton is missing."""
    try:
        from nanogpt2.kernels import gpu as fused  # slow to import, and not there for every system
    except ImportError as error:
        raise DeviceError("Triton is not installed") from error
    return fused.fuse_operators(device, config.n_embd, fp8=config.precision == "fp8")
