"""Muon beside torch's, and NorMuon beside its definition in NumPy."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.train.optimizers.choose import FOR_MATRICES
from nanogpt2.train.optimizers.muon import Muon, NorMuon, orthogonalise
from nanogpt2.train.trainer import Trainer


def matrices() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    shapes = [(8, 8), (24, 8), (8, 32), (8, 8), (24, 8)]
    return [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]


def test_muon_is_torchs_muon() -> None:
    ours, theirs = matrices(), matrices()
    pair = (
        Muon(ours, lr=0.02, weight_decay=0.1),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95),
    )
    for step in range(5):
        for weights, optimizer in zip((ours, theirs), pair, strict=True):
            torch.manual_seed(step)
            for weight in weights:
                weight.grad = torch.randn_like(weight)
            optimizer.step()
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, atol=2e-3, rtol=0)  # products are in bfloat16
        assert (our - their).abs().mean() < 2e-4


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 48, 16), (1, 16, 64)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)).float())
    assert values.min() > 0.3
    assert values.max() < 1.3


@pytest.mark.parametrize("name", FOR_MATRICES)
def test_it_takes_the_matrices_of_the_blocks_and_adamw_the_rest(tiny: Config, name: str) -> None:
    config = get_config({**tiny.to_dict(), "optimizer": name, "architecture": "modern"})
    model = GPT(config)
    adamw, muon = Trainer(model, config).stepper.optimizers
    assert type(muon) is FOR_MATRICES[name]
    by_muon = {id(p) for group in muon.param_groups for p in group["params"]}
    by_adamw = [id(p) for group in adamw.param_groups for p in group["params"]]
    assert by_muon == {id(p) for p in model.h.parameters() if p.dim() == 2}
    assert sorted([*by_muon, *by_adamw]) == sorted(id(p) for p in model.parameters())


# --- NorMuon ---


def test_normuon_moves_by_muons_update_with_its_neurons_evened_out() -> None:
    """The definition of Li et al. 2025 in float64, but for the iteration that both share."""
    rate, decay = 0.02, 0.1
    for shape in [(8, 8), (24, 8), (8, 32)]:
        torch.manual_seed(0)
        weight = torch.nn.Parameter(torch.randn(shape))
        optimizer = NorMuon([weight], lr=rate, weight_decay=decay)
        expected = weight.detach().double().numpy().copy()
        momentum = np.zeros(shape)
        along = 1 if shape[0] >= shape[1] else 0
        squares = np.zeros(shape[1 - along])
        for _ in range(4):
            gradient = torch.randn(shape) * torch.logspace(-2, 2, shape[0])[:, None]
            weight.grad = gradient
            optimizer.step()
            momentum = 0.95 * momentum + 0.05 * gradient.double().numpy()
            ahead = 0.05 * gradient.double().numpy() + 0.95 * momentum
            update = orthogonalise(torch.from_numpy(ahead).float()[None])[0].double().numpy()
            squares = 0.95 * squares + 0.05 * (update**2).mean(along)
            evened = update / np.expand_dims(np.sqrt(squares), along)
            evened *= np.linalg.norm(update) / np.linalg.norm(evened)
            expected *= 1 - rate * decay
            expected -= rate * np.sqrt(max(1.0, shape[0] / shape[1])) * evened
        assert np.abs(weight.detach().numpy() - expected).max() < 2e-4  # products in bfloat16


def test_in_normuon_all_neurons_move_equally_far() -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(32, 8))
    optimizer = NorMuon([weight], lr=1.0, weight_decay=0.0)
    gradient = torch.randn(32, 8) * torch.logspace(-3, 0, 32)[:, None]
    for _ in range(3):
        before = weight.detach().clone()
        weight.grad = gradient.clone()
        optimizer.step()
        lengths = (weight.detach() - before).norm(dim=1)
        assert lengths.max() / lengths.min() < 1.05  # 1000 and more in the gradient


def test_normuon_leaves_weights_without_a_gradient_finite_where_they_are() -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4))  # as the first step's, behind a zero projection
    weight.grad = torch.zeros(4, 4)
    NorMuon([weight], lr=0.1, weight_decay=0.0).step()
    assert torch.equal(weight.detach(), torch.ones(4, 4))


@pytest.mark.parametrize("make", FOR_MATRICES.values(), ids=FOR_MATRICES)
def test_a_gradient_that_is_not_finite_changes_nothing_then_or_later(make: type[Muon]) -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(6, 4) for _ in range(3)]
    results = []
    for spoilt in (False, True):
        weight = torch.nn.Parameter(torch.ones(6, 4))
        optimizer = make([weight], lr=0.1, weight_decay=0.1)
        for number, gradient in enumerate(gradients):
            if spoilt and number == 1:
                weight.grad = torch.full((6, 4), float("nan"))
                optimizer.found_inf = torch.ones(())
                optimizer.step()
            weight.grad, optimizer.found_inf = gradient.clone(), torch.zeros(())
            optimizer.step()
        results.append(weight.detach())
    assert torch.equal(*results)


@pytest.mark.parametrize("make", FOR_MATRICES.values(), ids=FOR_MATRICES)
def test_a_loaded_state_goes_on_to_the_bit(make: type[Muon]) -> None:
    torch.manual_seed(0)
    gradients = [torch.randn(6, 4) for _ in range(4)]
    weight = torch.nn.Parameter(torch.ones(6, 4))
    optimizer = make([weight], lr=0.1, weight_decay=0.1)
    for number, gradient in enumerate(gradients):
        if number == 2:
            resumed = torch.nn.Parameter(weight.detach().clone())
            again = make([resumed], lr=0.1, weight_decay=0.1)
            again.load_state_dict(deepcopy(optimizer.state_dict()))
        weight.grad = gradient
        optimizer.step()
    for gradient in gradients[2:]:
        resumed.grad = gradient
        again.step()
    assert torch.equal(weight, resumed)
