"""Significance: settings that are the same are rarely called different, and real effects are."""

import math
import random

import pytest

from nanogpt2.experiments.significance import (
    Comparison,
    compare,
    correct,
    describe,
    describe_runs,
    t_probability,
    t_quantile,
)


@pytest.mark.parametrize(
    ("freedom", "at_95", "at_99"),
    [  # NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.2
        (1, 12.706, 63.657),
        (2, 4.303, 9.925),
        (3, 3.182, 5.841),
        (4, 2.776, 4.604),
        (5, 2.571, 4.032),
        (9, 2.262, 3.250),
        (30, 2.042, 2.750),
        (100, 1.984, 2.626),
    ],
)
def test_quantiles_are_those_of_the_table(freedom: int, at_95: float, at_99: float) -> None:
    assert t_quantile(0.95, freedom) == pytest.approx(at_95, abs=5e-4)
    assert t_quantile(0.99, freedom) == pytest.approx(at_99, abs=5e-4)


def test_probabilities_are_those_of_closed_forms() -> None:
    for t in (0.0, 0.3, 1.0, 5.0, 1e6):
        assert t_probability(t, 1) == pytest.approx(2 / math.pi * math.atan(t))  # Cauchy
        assert t_probability(t, 2) == pytest.approx(t / math.sqrt(2 + t * t))
        assert t_probability(t, 3000) == pytest.approx(math.erf(t / math.sqrt(2)), abs=1e-3)
    assert t_probability(math.inf, 4) == 1


def test_a_comparison_is_that_of_the_textbook() -> None:
    # differences 1 .. 5: mean 3, standard deviation sqrt(2.5), t = 3 / sqrt(0.5) with 4 degrees
    comparison = compare([2.0, 4.0, 6.0, 8.0, 10.0], [1.0, 2.0, 3.0, 4.0, 5.0])
    assert comparison.differences == [1, 2, 3, 4, 5]
    assert comparison.mean == 3
    assert comparison.high - comparison.mean == pytest.approx(4.604 * math.sqrt(0.5), abs=1e-3)
    assert comparison.p_value == pytest.approx(0.01324, abs=1e-4)
    assert comparison.verdict == "no difference shown"


def simulate(shift: float, *, n: int, pairs: int, seed: int) -> list[str]:
    """Return verdicts on runs whose seeds matter for both, and whose differences have spread 1."""
    draw = random.Random(seed)
    verdicts = []
    for _ in range(pairs):
        common = [draw.gauss(1.5, 3) for _ in range(n)]
        first = [loss + shift + draw.gauss(0, math.sqrt(0.5)) for loss in common]
        second = [loss + draw.gauss(0, math.sqrt(0.5)) for loss in common]
        verdicts.append(compare(first, second).verdict)
    return verdicts


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("seed", range(5))
def test_a_setting_is_rarely_called_different_from_itself(n: int, seed: int) -> None:
    verdicts = simulate(0.0, n=n, pairs=200, seed=seed)
    assert len(verdicts) - verdicts.count("no difference shown") < 10


def test_corrected_p_values_are_those_of_holms_paper() -> None:
    # Holm 1979: the k-th smallest of n times n - k + 1, and never below the one before it
    assert correct([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct([0.6, 0.7]) == [1.0, 1.0]
    assert correct([0.009]) == [0.009]


@pytest.mark.parametrize("tried", [2, 20])
def test_of_many_settings_that_change_nothing_one_is_rarely_called_different(tried: int) -> None:
    """All are compared with the same base, so that its luck is in each comparison."""
    draw = random.Random(tried)
    wrong = uncorrected = 0
    for _ in range(300):
        base, *others = ([draw.gauss(2, 1) for _ in range(4)] for _ in range(tried + 1))
        found = [compare(other, base) for other in others]
        p_values = correct([each.p_value for each in found])
        wrong += any(c.judge(p) == "better" for c, p in zip(found, p_values, strict=True))
        uncorrected += any(each.verdict == "better" for each in found)
    assert wrong <= 6  # 1 in 100, and here the better half of them: 99.9% of such counts
    assert uncorrected >= wrong


@pytest.mark.parametrize(("n", "least"), [(5, 160), (8, 198)])
@pytest.mark.parametrize(("shift", "verdict"), [(-3.0, "better"), (3.0, "worse")])
def test_three_standard_deviations_are_found(
    n: int, least: int, shift: float, verdict: str
) -> None:
    verdicts = simulate(shift, n=n, pairs=200, seed=0)
    assert verdicts.count(verdict) >= least
    assert set(verdicts) <= {verdict, "no difference shown"}


def test_the_interval_leaves_out_0_where_a_difference_is_shown() -> None:
    draw = random.Random(0)
    for _ in range(200):
        first = [draw.gauss(1, 1) for _ in range(4)]
        comparison = compare(first, [0.0] * 4)
        shown = comparison.low > 0 or comparison.high < 0
        assert shown == (comparison.verdict != "no difference shown")


def test_runs_without_spread_differ_if_their_figures_do() -> None:
    assert compare([1.5, 1.25], [1.5, 1.25]).verdict == "no difference shown"
    assert compare([1.25, 1.25], [1.5, 1.5]).verdict == "better"


def test_one_pair_is_too_few() -> None:
    with pytest.raises(ValueError, match="at least 2 pairs"):
        compare([1.0], [2.0])


def test_the_reports_say_it_in_words() -> None:
    lines = describe_runs("dropout=0.2", {1: 1.5, 2: 1.6, 3: 1.7}).splitlines()
    assert lines[1:3] == ["  seed 1: 1.5000", "  seed 2: 1.6000"]
    assert lines[-1] == "  mean 1.6000, standard deviation 0.1000"
    text = describe(compare([1.0, 1.1, 1.0], [2.0, 2.1, 2.01]), "muon", "adamw")
    assert text.startswith("muon, minus adamw\n  by seed: -1.0000, -1.0000, -1.0100\n")
    assert text.endswith("verdict: better")


@pytest.mark.parametrize(
    ("p_value", "shown"),
    [
        (0.0101, "0.0101"),
        (0.00996, "0.00996"),
        (0.0099999, "0.0099999"),
        (0.013, "0.013"),
        (0.00012345, "0.00012"),
        (0.5, "0.5"),
        (1.0, "1"),
        (0.0, "0"),
    ],
)
def test_p_is_not_rounded_to_the_bound_beside_it(p_value: float, shown: str) -> None:
    comparison = Comparison([-1.0, -1.0], -1.0, -2.0, 1.0, p_value)
    assert f" p = {shown} (" in describe(comparison, "a", "b")


def test_small_differences_are_not_rounded_away() -> None:
    text = describe(compare([1.00001, 1.00002, 1.00001], [1.0, 1.0, 1.0]), "a", "b")
    assert "by seed: +0.00001, +0.00002, +0.00001" in text
    assert "0.00000" not in text
    assert "standard deviation 0.00001" in describe_runs("a", {1: 1.0, 2: 1.00001})
    assert "standard deviation 0.0000" in describe_runs("a", {1: 1.0, 2: 1.0})
