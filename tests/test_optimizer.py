"""The optimizer's groups and the learning rate's schedule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.config import Config, get_config
from nanogpt2.model import GPT
from nanogpt2.optimizer import learning_rate_factor, make_optimizers


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
