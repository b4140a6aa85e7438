"""EMA: the exponential moving average of the weights (Polyak & Juditsky 1992)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from nanogpt2.device.torch_private import foreach_add_, foreach_mul_, foreach_sub


class EMA:
    """A running mean of `weights`, which `decay` keeps of at each step; with 0 there is none.

    Early in a run the mean is young: after n steps it keeps (1 + n) / (10 + n) at most.
    """

    def __init__(self, weights: Sequence[Tensor], decay: float) -> None:
        self.weights = list(weights)
        self.decay = decay
        self.means = [weight.detach().clone() for weight in weights] if decay else []

    def share(self, step: int) -> Tensor:
        """Return what share of the weights after `step` enters the mean, a tensor on the host."""
        return torch.tensor(1 - min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def update(self, share: Tensor) -> None:
        """Move the mean, where there is one, towards the weights by `share`."""
        if self.means:
            change = foreach_sub(self.weights, self.means)
            foreach_mul_(change, share)
            foreach_add_(self.means, change)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the mean, where there is one, into the model for a while."""
        own = [weight.detach().clone() for weight in self.weights] if self.means else []
        self._write(self.means)
        try:
            yield
        finally:
            self._write(own)

    def keep(self) -> None:
        """Leave the mean, where there is one, in the model for good."""
        self._write(self.means)

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        if values:
            for weight, value in zip(self.weights, values, strict=True):
                weight.copy_(value)
