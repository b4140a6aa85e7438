"""What a caller finds as it was: the modes of modules, and torch's random generators."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Have all of `model` in evaluation mode; afterwards each module is in its own again."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def kept_generators(device: torch.device) -> AbstractContextManager[None]:
    """Leave torch's generators, that of `device` too, as they were before."""
    cuda = [torch.cuda.current_device()] if device.type == "cuda" else []
    return torch.random.fork_rng(devices=cuda)
