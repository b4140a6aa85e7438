"""Which operators a device trains with: the one place that makes, checks and replaces them."""

from collections.abc import Callable

import torch

from nanogpt2.base.screen.screen import detail, phase
from nanogpt2.base.system.errors import DeviceError
from nanogpt2.config.config import Config
from nanogpt2.device.cublaslt import load_library
from nanogpt2.device.device import is_rocm, precision_dtype
from nanogpt2.device.group import SINGLE, Group
from nanogpt2.kernels.checks.check import agree, check_operators
from nanogpt2.kernels.cpu.operators import compile_operators
from nanogpt2.kernels.cublaslt import Products
from nanogpt2.model.operators import TORCH, Operators

Say = Callable[[str], None]


def find_operators(
    config: Config, device: torch.device, *, say: Say, group: Group = SINGLE
) -> Operators:
    """Return the fastest operators that `device` has, each of them torch's or equal to it.

    `say` is told why one is torch's, in all of `group` then. DeviceError: fp8 is asked for in vain.
    """
    with phase("checking kernels"):
        operators = agree(_find_operators(config, device, say), group, say=say)
    detail(f"operators of training: {type(operators).__name__}")
    return operators


def _find_operators(config: Config, device: torch.device, say: Say) -> Operators:
    if not config.compile or device.type not in ("cpu", "cuda"):
        return TORCH
    dtype = precision_dtype(str(config.precision), device)
    try:
        if device.type == "cpu":
            operators: Operators = compile_operators(config.n_embd // config.n_head)
            check_operators(operators, config, device, dtype, say=say)
            return operators
        return _fuse_operators(config, device, dtype, say)
    except DeviceError as error:
        if config.precision == "fp8":
            raise DeviceError(f"precision: found fp8: {error}; use auto or bf16") from error
        say(f"note: {error}: training goes on with torch's operators, more slowly")
    return TORCH


def _fuse_operators(
    config: Config, device: torch.device, dtype: torch.dtype, say: Say
) -> Operators:
    """Return the kernels of a GPU; DeviceError where Triton is missing, or fp8 does not work.

    And on AMD's GPUs: a kernel that hangs is nothing that a check could refuse.
    """
    if is_rocm():
        raise DeviceError("no kernels for AMD's GPUs")
    try:  # slow to import, and not there for every system
        from nanogpt2.kernels import fp8, gpu, gpu_kernels
        from nanogpt2.kernels.checks.gpu_ahead import compiling_ahead, hash_beside
    except ImportError as error:
        raise DeviceError("Triton is not installed") from error
    hash_beside()
    products = _find_products(device, say)
    in_parts = config.batch_size * config.block_size * config.n_embd >= gpu.PARTS_FROM
    fused, tolerances = gpu.FusedOperators(device, products, in_parts=in_parts), {}
    if config.precision == "fp8":
        fused, tolerances = fp8.EightBitOperators(device, products), fp8.TOLERANCES
    with compiling_ahead(fused, gpu_kernels, config, device, dtype):
        products.vet(dtype, say=say)
    refused = check_operators(fused, config, device, dtype, say=say, tolerances=tolerances)
    if refused & tolerances.keys():
        raise DeviceError("its products are not torch's here")
    return fused


def _find_products(device: torch.device, say: Say) -> Products:
    """Return products of cuBLASLt's, or torch's where it is not there or cannot be used."""
    try:
        return Products(device, load_library())
    except (DeviceError, RuntimeError) as error:
        say(f"note: {error}: torch multiplies")
        return Products(device)
