"""Losses while training goes on: the mean over batches that are the same each time."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nanogpt2.tokens.dataset import Dataset
from nanogpt2.train.step import Stepper, no_check


@torch.no_grad()
def estimate_loss(
    stepper: Stepper, dataset: Dataset, *, check: Callable[[], None] = no_check
) -> float:
    """Return the mean loss, in nats per token, of `eval_iters` batches, always the same.

    A group's processes take turns; in the last round those left over are not counted.
    """
    count, size = stepper.config.eval_iters, stepper.group.size
    rounds = math.ceil(count / size)
    numbers = range(stepper.group.rank, rounds * size, size)
    stepper.model.eval()
    try:
        with stepper.computing():
            losses = [_evaluate(stepper, dataset, number, check) for number in numbers]
    finally:
        stepper.model.train()
    in_order = stepper.group.in_turn(torch.stack(losses))[:count]
    return in_order.cpu().double().mean().item()  # MPS has no float64


def _evaluate(stepper: Stepper, dataset: Dataset, number: int, check: Callable[[], None]) -> Tensor:
    """Return the mean loss of evaluation batch `number`."""
    check()
    count = stepper.config.batch_size
    windows = stepper.batches.draw_to_evaluate(dataset, count, number)
    return stepper.micro_batch.fit(lambda: _forward(stepper, dataset, windows))


def _forward(stepper: Stepper, dataset: Dataset, windows: Tensor) -> Tensor:
    """Return the mean loss over `windows`."""
    with stepper.autocast():
        losses = [
            stepper.model.loss(idx, targets) * (len(idx) / len(windows))
            for idx, targets in stepper.batches.read(dataset, windows, stepper.micro_batch.size)
        ]
    return torch.stack(losses).sum()
