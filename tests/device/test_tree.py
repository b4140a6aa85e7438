"""Sums in a fixed tree: neighbours in pairs, whoever adds them."""

import pytest
import torch
from torch import Tensor

from nanogpt2.device.tree import TreeSum


def pairwise(parts: list[Tensor]) -> Tensor:
    half = len(parts) // 2
    return pairwise(parts[:half]) + pairwise(parts[half:]) if half else parts[0]


def added(parts: list[Tensor]) -> Tensor:
    tree = TreeSum()
    for part in parts:
        tree.add(part.clone())
    return tree.total()


@pytest.mark.parametrize("count", [1, 2, 4, 8, 16])
def test_it_adds_halves_of_halves_whoever_adds_a_run_of_parts(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    parts = [torch.randn(1000, generator=generator) for _ in range(count)]
    assert torch.equal(added(parts), pairwise(parts))
    for processes in (2, 4):
        if count >= processes:
            runs = torch.stack(parts).chunk(processes)
            assert torch.equal(added([added([*run]) for run in runs]), pairwise(parts))
