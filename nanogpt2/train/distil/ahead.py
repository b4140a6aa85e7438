"""The loss on the token after the next, in training alone (Gloeckle et al. 2024, "Better & Faster
Large Language Models via Multi-token Prediction").

A matrix that starts as the identity takes the final hidden states to those that predict it, under
the model's own head. It is no part of a model file. In the second half of a run it has no say.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor, nn

from nanogpt2.config.config import Config
from nanogpt2.model.gpt import GPT, Criterion
from nanogpt2.model.operators import Operators
from nanogpt2.train.distil.follow import Objective
from nanogpt2.train.finetune.lora import merge_lora, merged

NAME = "ahead"  # of the matrix, as a part of the model while it trains


def add_ahead(model: GPT, config: Config) -> None:
    """Give `model` the matrix where mtp_weight asks for it; again, do nothing."""
    if config.mtp_weight and not hasattr(model, NAME):
        matrix = nn.Linear(config.n_embd, config.n_embd, bias=False, device="meta")
        matrix.weight = nn.Parameter(torch.eye(config.n_embd, device=model.wte.weight.device))
        model.add_module(NAME, matrix)


def release(model: GPT) -> None:
    """Make `model` an ordinary one again: LoRA's sums are its weights, the matrix is gone."""
    merge_lora(model)
    if hasattr(model, NAME):
        delattr(model, NAME)


def released(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict that `release` would leave of `state`."""
    return merged({name: weight for name, weight in state.items() if not name.startswith(NAME)})


def ahead_share(step: int, config: Config) -> float:
    """Return what the loss ahead counts in `step`: mtp_weight at first, 0 from half of them on."""
    return config.mtp_weight * max(0.0, 1 - 2 * step / config.max_iters)


class LookingAhead(Objective):
    """Another objective, and beside it the loss on the token after the next."""

    def __init__(self, objective: Objective, config: Config, device: torch.device) -> None:
        self.objective, self.config = objective, config
        self.share = torch.zeros((), device=device)  # a CUDA graph reads it anew each time
        self.skips = device.type != "cuda"
        self.counts = True

    def begin(self, step: int) -> None:
        self.objective.begin(step)
        self.turn = self.objective.turn
        share = ahead_share(step, self.config)
        self.share.fill_(share)
        self.counts = share > 0 or not self.skips

    def criterion(self, model: GPT, idx: Tensor) -> Criterion:
        own = self.objective.criterion(model, idx)
        looks = self.counts and idx.shape[1] > 1
        return partial(self._add, model, own) if looks else own

    def _add(
        self,
        model: GPT,
        own: Criterion,
        x: Tensor,
        head: Tensor,
        targets: Tensor,
        *,
        softcap: float,
    ) -> Tensor:
        loss = own(x, head, targets, softcap=softcap)
        operators, matrix = model.operators, model.get_submodule(NAME)
        assert isinstance(matrix, nn.Linear)
        x, targets = operators.linear(x[:, :-1].contiguous(), matrix), targets[:, 1:].contiguous()
        return loss + self.share * operators.cross_entropy(x, head, targets, softcap=softcap)

    def cast_weights(
        self, operators: Operators, factors: list[Tensor], dtype: torch.dtype
    ) -> AbstractContextManager[None]:
        return self.objective.cast_weights(operators, factors, dtype)
