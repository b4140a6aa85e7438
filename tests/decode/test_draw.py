"""Sampling controls: what each keeps, and draws that depend on nothing but their seed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.decode.draw import Controls, draw_tokens, draw_uniforms, filter_probabilities

PROBABILITIES = torch.tensor([[0.4, 0.3, 0.2, 0.1]])


def kept(controls: Controls) -> list[int]:
    return filter_probabilities(PROBABILITIES, controls)[0].nonzero()[:, 0].tolist()


def test_top_k_keeps_the_k_most_likely_and_all_where_there_are_fewer() -> None:
    assert kept(Controls(top_k=2)) == [0, 1]
    assert kept(Controls(top_k=1000)) == [0, 1, 2, 3]
    assert kept(Controls(top_k=0)) == [0, 1, 2, 3]  # off, as transformers has it


def test_top_p_keeps_the_fewest_tokens_that_reach_p() -> None:
    assert kept(Controls(top_p=0.65)) == [0, 1]
    assert kept(Controls(top_p=0.75)) == [0, 1, 2]
    assert kept(Controls(top_p=1e-6)) == [0]
    assert kept(Controls(top_p=1.0)) == [0, 1, 2, 3]


def test_top_p_counts_what_top_k_left() -> None:
    assert kept(Controls(top_k=2, top_p=0.5)) == [0]  # 0.4 of 0.7


def test_min_p_is_a_share_of_the_most_likely() -> None:
    assert kept(Controls(min_p=0.6)) == [0, 1]
    assert kept(Controls(min_p=0.0)) == [0, 1, 2, 3]


def test_the_repetition_penalty_makes_seen_tokens_less_likely() -> None:
    logits = torch.tensor([[2.0, 1.5, -1.0]])
    seen = torch.tensor([[True, False, True]])
    greedy = Controls(temperature=0, repetition_penalty=1.5)
    assert draw_tokens(logits, torch.zeros(1, 1), greedy).tolist() == [0]
    assert draw_tokens(logits, torch.zeros(1, 1), greedy, seen=seen).tolist() == [1]


def test_a_uniform_picks_the_first_token_whose_cumulated_probability_exceeds_it() -> None:
    logits = PROBABILITIES.log().expand(5, 4)
    uniforms = torch.tensor([[0.0], [0.39], [0.41], [0.71], [0.999999]], dtype=torch.float64)
    assert draw_tokens(logits, uniforms, Controls()).tolist() == [0, 0, 1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=20),
    uniform=st.floats(0, 1, exclude_max=True),
    temperature=st.floats(0, 100),
    top_k=st.none() | st.integers(1, 30),
    top_p=st.none() | st.floats(0, 1, exclude_min=True),
    min_p=st.none() | st.floats(0, 1),
)
def test_any_controls_draw_a_token_that_they_keep(
    logits: list[float],
    uniform: float,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
) -> None:
    controls = Controls(temperature, top_k, top_p, min_p)
    row = torch.tensor([logits])
    (token,) = draw_tokens(row, torch.tensor([[uniform]], dtype=torch.float64), controls).tolist()
    assert 0 <= token < len(logits)
    if temperature == 0 or top_k == 1:
        assert row[0, token] == row.max()


def test_uniforms_depend_on_the_seed_alone_and_go_on() -> None:
    many = draw_uniforms([3, 4, 5], 50)
    assert torch.equal(draw_uniforms([4], 20)[0], many[1, :20])
    for seed in (0, 5, 2**64 - 1):  # as numpy draws them from a generator of the seed's own
        own = np.random.Generator(np.random.Philox(key=seed)).random(7)
        assert draw_uniforms([9, seed], 7)[1].tolist() == own.tolist()
    assert len(set(many.flatten().tolist())) == 150
    assert 0 <= many.min() < many.max() < 1


def test_the_smallest_top_p_is_greedy() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    uniforms = torch.tensor([[0.9]], dtype=torch.float64)
    assert draw_tokens(logits, uniforms, Controls(top_p=5e-324)).tolist() == [1]


def test_the_smallest_temperature_is_greedy() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    uniforms = torch.tensor([[0.9]], dtype=torch.float64)
    assert draw_tokens(logits, uniforms, Controls(temperature=1e-300)).tolist() == [1]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"temperature": -1.0}, "temperature: found -1.0; allowed: a finite number, at least 0"),
        ({"temperature": math.nan}, "temperature: found nan; allowed"),
        ({"top_k": -1}, "top_k: found -1; allowed: null or an integer, at least 0"),
        ({"top_k": 2.0}, "top_k: found 2.0; allowed: null or an integer, at least 0"),
        ({"temperature": "1"}, "temperature: found 1; allowed"),
        ({"temperature": None}, "temperature: found None; allowed"),
        ({"temperature": 10**400}, "temperature: found 1000"),
        ({"top_p": 0.0}, "top_p: found 0.0; allowed: null or above 0, at most 1"),
        ({"min_p": 1.5}, "min_p: found 1.5; allowed: null or from 0 to 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: found 0.0; allowed"),
    ],
)
def test_a_control_out_of_range_has_one_line(values: dict[str, float], line: str) -> None:
    with pytest.raises(ConfigError, match=f"^{line}"):
        Controls(**values)  # type: ignore[arg-type]
