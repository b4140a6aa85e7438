"""Ensembles: the mean of several models' probabilities, as the logits of one model.

The logarithm of a mean probability is a logit, so that whatever takes logits takes an ensemble.
Lakshminarayanan et al. 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep
Ensembles".
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from nanogpt2.model.gpt import GPT, unwrapped


@dataclass(frozen=True)
class Limits:
    """What each model of an ensemble allows: token numbers below it, and tokens in a window."""

    vocab_size: int
    block_size: int


class Ensemble(nn.Module):
    """Several models as one; they may differ in shape, and have the smallest block_size of all."""

    def __init__(self, models: Sequence[GPT]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.config = Limits(
            vocab_size=min(model.config.vocab_size for model in models),
            block_size=min(model.config.block_size for model in models),
        )

    @property
    def members(self) -> list[GPT]:
        """The models."""
        return [model for model in self.models if isinstance(model, GPT)]

    @property
    def wte(self) -> nn.Embedding:
        """The first model's token embedding, which tells where all of them are."""
        return self.members[0].wte

    @property
    def slides(self) -> bool:
        """Whether the window slides in the caches of all models alike."""
        sizes = {model.config.block_size for model in self.members}
        return len(sizes) == 1 and not any(hasattr(model, "wpe") for model in self.members)

    def forward(self, idx: Tensor) -> Tensor:
        """Return log-probabilities (B, T, V) after tokens `idx` (B, T), one model at a time.

        V is the largest vocab_size; a token that a model lacks has the probability 0 there.
        """
        rows = max(model.config.vocab_size for model in self.members)
        return mean_logits(
            F.pad(logits, (0, rows - logits.shape[-1]), value=-math.inf)
            for logits in (model(idx) for model in self.members)
        )


Model: TypeAlias = GPT | Ensemble


def mean_logits(each: Iterable[Tensor]) -> Tensor:
    """Return the logarithm of the mean of the probabilities that `each` logits (..., V) give.

    It is summed in float32 as logarithms, where no probability is too small a number; two such
    tensors are held at a time.
    """
    total, count = None, 0
    for logits in each:
        logits = F.log_softmax(logits.float(), dim=-1)
        total = logits if total is None else total.logaddexp(logits)
        count += 1
    assert total is not None
    return total - math.log(count)


def unwrapped_model(model: nn.Module) -> Model:
    """Return an ensemble as it is, and any other model within what torch wraps around it."""
    return model if isinstance(model, Ensemble) else unwrapped(model)
