"""The rules by which two figures are compared, or are not."""

from collections.abc import Mapping
from typing import Any

import pytest

from nanogpt2.base.system.errors import DataError
from nanogpt2.experiments.gate.judge import Row, Side, judge_figure
from nanogpt2.experiments.gate.noise import Noise
from nanogpt2.experiments.gate.thresholds import Acceptance, Threshold

FILE = "metrics/eval.json"
SPLIT = {
    "loss": 2.0,
    "perplexity": 7.389,
    "bits_per_byte": 2.885,
    "accuracy": 0.5,
    "tokens": 1000,
    "bytes": 1000,
    "text": "b189b4ea2870",
}
NOISE = Noise(
    "noise.json",
    [1, 2, 3],
    {},
    {FILE: {"val.loss": [2.0, 2.01, 2.02], "val.text": ["b189b4ea2870"] * 3}},
)
ALLOWED = 6.965 * 0.01 * 2**0.5  # t of 1% with 2 degrees of freedom


def judge(
    *changes: Mapping[str, Any],
    key: str = "val.loss",
    allowed: str | float = 0.1,
    lower: bool = True,
    accept: Acceptance | None = None,
    accepts: bool = True,
    parameters: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
) -> Row:
    """Return the row of a base and a head that differ by `changes` of the validation split."""
    sides = [
        Side({FILE: {"val": SPLIT | dict(change)}}, values)
        for change, values in zip(changes, parameters, strict=True)
    ]
    threshold = Threshold(FILE, key, lower_is_better=lower, allowed=allowed, accept=accept)
    return judge_figure(threshold, *sides, noise=lambda: NOISE, chance=0.01, accepts=accepts)


@pytest.mark.parametrize(
    ("loss", "allowed", "verdict"),
    [
        (2.0, 0.1, "the same"),
        (2.09, 0.1, "no worse"),
        (2.11, 0.1, "WORSE"),
        (1.91, 0.1, "no worse"),
        (1.89, 0.1, "better"),
        (2.019, "1%", "no worse"),
        (2.021, "1%", "WORSE"),
        (2 + ALLOWED * 0.99, "noise", "no worse"),
        (2 + ALLOWED * 1.01, "noise", "WORSE"),
        (2 - ALLOWED * 1.01, "noise", "better"),
    ],
)
def test_a_figure_fails_where_it_is_worse_by_more_than_is_allowed(
    loss: float, allowed: str | float, verdict: str
) -> None:
    row = judge({}, {"loss": loss}, allowed=allowed)
    assert (row.verdict, row.fails) == (verdict, verdict == "WORSE")


def test_where_higher_is_better_lower_fails() -> None:
    options: dict[str, Any] = {"key": "val.accuracy", "lower": False, "allowed": 0.02}
    assert judge({}, {"accuracy": 0.47}, **options).verdict == "WORSE"
    assert judge({}, {"accuracy": 0.53}, **options).verdict == "better"


def test_a_figure_that_the_head_lacks_fails_and_one_that_is_new_passes() -> None:
    lacking = {"loss": float("nan")}  # as good as none
    assert judge({}, lacking).verdict == "missing in metrics/eval.json"
    assert judge({}, lacking).fails
    row = judge(lacking, {})
    assert (row.verdict, row.fails) == ("new: nothing to compare with", False)


@pytest.mark.parametrize(
    ("before", "now", "parameters", "why"),
    [
        ({}, {"text": "000000000000"}, ({}, {}), "another held-out text"),
        (
            {"of_tokens": 9000},
            {"of_tokens": 9000, "tokens": 2000},
            ({}, {}),
            "another evaluate.max_tokens",
        ),
        (
            {"of_tokens": 9000},
            {"of_tokens": 5000},
            ({}, {}),
            "other parts of the text (evaluate.max_tokens)",
        ),
        (
            {"of_tokens": 9000},
            {"of_tokens": 9000},
            ({"block_size": 64}, {"block_size": 128}),
            "other parts of the text (evaluate.max_tokens)",
        ),
        (
            {},
            {},
            ({"evaluate": {"stride": None}}, {"evaluate": {"stride": 64}}),
            "another evaluate.stride",
        ),
    ],
)
def test_figures_of_other_texts_or_parts_are_not_compared_and_fail(
    before: dict[str, Any], now: dict[str, Any], parameters: Any, why: str
) -> None:
    row = judge(before, now, parameters=parameters)  # the losses are the same
    assert (row.verdict, row.fails) == (f"not comparable: {why}", True)
    taken = judge(before, now, parameters=parameters, accept=Acceptance(2.0, "a new text"))
    assert taken.verdict == f"not comparable: {why}; accepted: a new text"
    assert not taken.fails


def test_with_other_tokens_bits_per_byte_are_compared() -> None:
    """A bound of 0.1 nats for each of 1000 tokens is one of 0.144 bits for each byte."""
    head = {"tokens": 500, "loss": 4.0}
    better, worse = ({**head, "bits_per_byte": 2.885 + off} for off in (0.14, 0.15))
    row = judge({}, better)
    assert (row.name, row.base, row.head) == ("val.loss as bits_per_byte", 2.885, 3.025)
    assert row.allowed == pytest.approx(0.1 * 2.885 / 2.0)
    assert (row.verdict, judge({}, worse).verdict) == ("no worse", "WORSE")
    assert not judge({}, worse, accept=Acceptance(4.0, "quicker")).fails  # of the head's own loss
    row = judge({}, head, key="val.accuracy", lower=False)
    assert (row.verdict, row.fails) == ("not comparable: other tokens", True)


def test_an_acceptance_counts_up_to_its_figure_and_until_it_is_spent() -> None:
    accept = Acceptance(2.5, "half the size")
    assert judge({}, {"loss": 2.5}, accept=accept).verdict == "accepted: half the size"
    assert judge({}, {"loss": 2.51}, accept=accept).verdict == "WORSE"
    assert judge({}, {"loss": 2.5}, accept=accept, accepts=False).verdict == "WORSE"
    assert judge({}, {"loss": 2.05}, accept=accept).verdict == "no worse"


def test_noise_of_another_text_is_of_no_use() -> None:
    other = {"text": "000000000000"}
    with pytest.raises(DataError, match=r"its val\.loss is of another text than the base's"):
        judge(other, {**other, "loss": 2.01}, allowed="noise")
    assert judge(other, other, allowed="noise").verdict == "the same"  # and it is not asked for
