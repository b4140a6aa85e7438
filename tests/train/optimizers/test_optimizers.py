"""The optimizer's groups and the learning rate's schedule."""

import subprocess
from pathlib import Path

import pytest
import torch
import warm
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.train.optimizers.choose import make_optimizers
from nanogpt2.train.optimizers.loss_scale import LossScale
from nanogpt2.train.optimizers.muon import Muon
from nanogpt2.train.optimizers.rates import learning_rate_factor


def test_each_weight_is_in_one_group_and_only_matrices_decay(tiny: Config) -> None:
    model = GPT(tiny)
    decay, no_decay = make_optimizers(model, tiny)[0].param_groups
    grouped = [id(p) for group in (decay, no_decay) for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert decay["weight_decay"] == tiny.weight_decay
    assert no_decay["weight_decay"] == 0
    assert {p.dim() for p in decay["params"]} == {2}
    assert {p.dim() for p in no_decay["params"]} == {1}


def schedule(max_iters: int, warmup_iters: int) -> list[float]:
    config = get_config("nano", max_iters=max_iters, warmup_iters=warmup_iters)
    return [1e-3 * learning_rate_factor(step, config) for step in range(max_iters)]


def test_it_rises_to_the_peak_and_falls_to_the_minimum() -> None:
    rates = schedule(100, 10)
    assert rates[0] == pytest.approx(1e-4)
    assert rates[9] == 1e-3 == max(rates)
    assert rates[54] == pytest.approx(0.55e-3, rel=0.02)  # half way down
    assert rates[-1] == pytest.approx(1e-4)


@given(st.integers(1, 300), st.integers(0, 400))
def test_it_stays_above_zero_and_never_exceeds_the_peak(max_iters: int, warmup_iters: int) -> None:
    rates = schedule(max_iters, warmup_iters)
    assert all(0 < rate <= 1e-3 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_the_loss_scale_is_gradscalers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossScale, "PATIENCE", 3)
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight])
    theirs = torch.amp.GradScaler("cpu", init_scale=LossScale.INITIAL, growth_interval=3)
    ours = LossScale(torch.device("cpu"))
    for finite in [True] * 7 + [False, False, True, True, False] + [True] * 5 + [False]:
        theirs.scale(torch.zeros(()))  # it makes its tensors when it is first used
        weight.grad = torch.full((2,), 1.0 if finite else float("inf"))
        theirs.step(optimizer)
        theirs.update()
        ours.update(torch.tensor(float(not finite)))
        assert ours.value.item() == theirs.get_scale()
    assert ours.value.item() != LossScale.INITIAL


def test_muon_divides_gradients_as_a_fused_optimizer_does() -> None:
    found = []
    for divisor in (1.0, 4.0):
        weight = torch.nn.Parameter(torch.eye(8))
        optimizer = Muon([weight], lr=0.1, weight_decay=0.1)
        optimizer.grad_scale = torch.tensor(divisor)
        for step in range(3):
            weight.grad = divisor * torch.arange(64.0).view(8, 8).roll(step).sin()
            optimizer.step()
        found += [weight.detach(), optimizer.state[weight]["momentum_buffer"]]
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])


def test_training_does_not_wait_for_the_import_of_dynamo(tmp_path: Path) -> None:
    lines = [
        "import sys",
        "assert 'torch._dynamo' not in sys.modules",
        "from nanogpt2.config.config import get_config",
        "from nanogpt2.tokens.dataset import CharDataset",
        "from nanogpt2.device.device import use_deterministic_kernels",
        "from nanogpt2.model.gpt import GPT",
        "from nanogpt2.train.trainer import Trainer",
        "use_deterministic_kernels(True)",  # as on a GPU
        "c = get_config('nano', max_iters=2, eval_iters=1, n_layer=1, n_embd=16,",
        "    n_head=1, block_size=16, batch_size=4, device='cpu')",
        "d = CharDataset('some text. ' * 40, c.block_size)",
        "Trainer(GPT(c), c).train(d, d)",
        "sys.exit('torch._dynamo' in sys.modules)",
    ]
    command = [warm.executable(), "-c", "\n".join(lines)]
    subprocess.run(command, cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
