"""Rows of logits in chunks: what is made of each chunk of them, as torch has it.

`distil.cpu` has the same for a CPU, and `distil.gpu` for a GPU.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nanogpt2.kernels.cublaslt import Products
from nanogpt2.model.operators import cap_logits

CACHE_BYTES = 2.0**22  # of logits that a CPU works on at once: its nearest large cache has them
MEMORY_BYTES = 2.0**28  # and that another device has at once


class Rows:
    """Torch's, on `device`; R: rows of a chunk, n: tokens."""

    def __init__(self, device: torch.device) -> None:
        self.multiply = Products(device).multiply
        self.logits_bytes = CACHE_BYTES if device.type == "cpu" else MEMORY_BYTES

    def chunk(self, rows: int, width: int, element_size: int) -> int:
        """Return how many of all `rows` of `width` logits are a chunk."""
        each = width * (element_size + 4)  # probabilities too, in float32
        parts = math.ceil(rows * each / self.logits_bytes)
        return 128 * math.ceil(rows / parts / 128)  # so that the parts are aligned

    def cast(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Return `weight` in `dtype`."""
        return weight.to(dtype)

    def add_probabilities(
        self, total: Tensor, logits: Tensor, softcap: float, temperature: float, *,
        share: float, add: bool,
    ) -> None:  # fmt: skip
        """Put into `total` (R, n) the `share` of a teacher's probabilities, or `add` it.

        `logits` (R, at least n), from before the cap, may be spoiled.
        """
        logits = cap_logits(logits[:, : total.shape[1]].float(), softcap)
        shares = F.softmax(logits / temperature, dim=-1) * share
        total.add_(shares) if add else total.copy_(shares)

    def replace_by_gradient(
        self, logits: Tensor, shares: Tensor, targets: Tensor, losses: Tensor, V: int,
        softcap: float, weight: float, temperature: float,
    ) -> None:  # fmt: skip
        """Put each row's loss into `losses` (R,), and its gradient in the place of `logits`.

        `logits` (R, at least V), from before the cap, are the student's, and `shares` (R, n) the
        probabilities that it follows. A row whose target is -1 has none of both.
        """
        counts, n = (targets >= 0)[:, None], shares.shape[1]
        z = cap_logits(logits[:, :V].float(), softcap)
        logs, soft_logs = (F.log_softmax(z / t, dim=-1) for t in (1.0, temperature))
        places = targets.clamp(min=0)[:, None]
        hard, soft = -logs.gather(1, places)[:, 0], -(shares * soft_logs[:, :n]).sum(-1)
        losses.copy_((1 - weight) * hard + weight * temperature**2 * soft)
        losses.masked_fill_(~counts[:, 0], 0)
        gradient = (1 - weight) * logs.exp() + weight * temperature * soft_logs.exp()
        gradient[:, :n] -= weight * temperature * shares
        gradient -= (1 - weight) * (torch.arange(V, device=z.device) == places)
        if softcap:
            gradient *= 1 - (z / softcap) ** 2
        logits.zero_()
        logits[:, :V] = gradient * counts
