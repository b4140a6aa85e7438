"""LoRA: low-rank changes of the blocks' matrices, which stay as they are (Hu et al. 2021).

While it trains, a matrix is `weight + 2 * up @ down`; then the sum takes the place of the weight,
so that a checkpoint is an ordinary one.
"""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nanogpt2.config.config import Config
from nanogpt2.model.gpt import GPT

SCALE = 2.0  # alpha / rank
PREFIX = ".parametrizations.weight."  # torch's, between the name of a layer and what it is made of


class LowRank(nn.Module):
    """Adds a change of rank `rank` to a matrix (out, in): up (out, rank) times down (rank, in).

    `up` starts at zero, so that the sum starts as the matrix.
    """

    def __init__(self, matrix: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = matrix.shape
        bound = 1 / math.sqrt(columns)
        down = torch.empty(rank, columns).uniform_(-bound, bound, generator=generator)
        self.down = nn.Parameter(down.to(matrix.device))
        self.up = nn.Parameter(torch.zeros(rows, rank, device=matrix.device))

    def forward(self, weight: Tensor) -> Tensor:
        """Return `weight` (out, in) with the change, in full precision also under autocast."""
        with torch.autocast(weight.device.type, enabled=False):
            return add_change(weight, self.up, self.down)


def add_change(weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Return `weight` (out, in) + 2 * `up` (out, rank) @ `down` (rank, in)."""
    return weight + SCALE * (up @ down)


def add_lora(model: GPT, config: Config) -> None:
    """Let the changes of the blocks' matrices be all that trains in `model`; again, do nothing."""
    if any(_adapted(model)):
        return
    model.requires_grad_(False)
    generator = torch.Generator().manual_seed(config.seed)
    for layer in model.h.modules():
        if isinstance(layer, nn.Linear):
            change = LowRank(layer.weight, config.lora_rank, generator)
            parametrize.register_parametrization(layer, "weight", change)


def merge_lora(model: GPT) -> None:
    """Put the sums in the place of the weights, and let all of `model` train again."""
    for layer in list(_adapted(model)):
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        layer._parameters["bias"] = layer._parameters.pop("bias")  # after the weight, as it was
    model.requires_grad_(True)


def merged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict with each sum in the place of what it is made of."""
    plain: dict[str, Tensor] = {}
    for name, value in state.items():
        layer = name.partition(PREFIX)[0] if PREFIX in name else name.rpartition(".")[0]
        weight = f"{layer}.weight"
        if f"{layer}{PREFIX}original" in state and weight not in plain:
            parts = (state[f"{layer}{PREFIX}{part}"] for part in ("original", "0.up", "0.down"))
            plain[weight] = add_change(*parts)
        if PREFIX not in name:
            plain[name] = value
    return plain


def _adapted(model: nn.Module) -> Iterator[nn.Linear]:
    for module in model.modules():
        if isinstance(module, nn.Linear) and parametrize.is_parametrized(module, "weight"):
            yield module
