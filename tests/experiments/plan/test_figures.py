"""Figures of a text: n-gram losses as the formula gives them, counted one by one."""

import math
import string
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.experiments.plan.figures import ORDERS, as_codes, ngram_losses, pieces, read_figures

TEXTS = st.text(alphabet="abc 한", min_size=2, max_size=60)


def losses_one_by_one(train: str, val: str) -> list[float]:
    """Witten and Bell's mixture, order by order, straight from its definition."""
    kinds = len({*train, *val})
    counts = Counter(train)
    likely = [(counts[c] + 1) / (len(train) + kinds) for c in val]
    losses = [-sum(map(math.log, likely)) / len(val)]
    for order in range(1, ORDERS + 1):
        followed: dict[str, Counter[str]] = defaultdict(Counter)
        padded = "\0" * order + train
        for i, c in enumerate(train):
            followed[padded[i : i + order]][c] += 1
        asked = "\0" * order + val
        for i, c in enumerate(val):
            after = followed.get(asked[i : i + order])
            if after:
                novel = len(after)
                likely[i] = (after[c] + novel * likely[i]) / (after.total() + novel)
        losses.append(-sum(map(math.log, likely)) / len(val))
    return losses


@settings(max_examples=50)
@given(TEXTS, TEXTS)
def test_losses_are_those_of_the_formula(train: str, val: str) -> None:
    found = list(ngram_losses(as_codes(train), as_codes(val)))
    assert found == pytest.approx(losses_one_by_one(train, val), abs=1e-9)


def test_a_text_that_repeats_itself_costs_little_and_one_of_chance_its_entropy() -> None:
    again = read_figures("the same line again and again\n" * 400, "the same line again and again\n")
    assert again["order_6"] < 0.2 < again["order_1"]
    rng = np.random.default_rng(1)
    drawn = "".join(rng.choice(list(string.ascii_lowercase), 40_000))
    chance = read_figures(drawn[:36_000], drawn[36_000:])
    assert chance["order_0"] == pytest.approx(math.log(26), abs=0.02)
    assert chance["order_4"] > chance["order_0"] - 0.02
    assert chance["kinds"] == 26
    assert chance["characters"] == 36_000


def test_less_text_is_counted_in_pieces_from_all_over_it() -> None:
    text = "".join(chr(65 + i) * 8192 for i in range(8))
    assert set(pieces(text, 4)) == {"A", "E"}
    assert pieces(text, 1) == text
