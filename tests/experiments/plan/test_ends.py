"""How a run ends: what its half and its quarter say of the whole."""

import numpy as np
import pytest

from nanogpt2.experiments.plan.ends import (
    EXPECTED,
    RUNS,
    Start,
    end_features,
    predict_end,
    read_ends,
)
from nanogpt2.experiments.plan.laws import Law, read_runs

STARTS = "half", "quarter", "half_own", "quarter_own"


@pytest.fixture(scope="module")
def law() -> Law:
    return read_ends()


@pytest.fixture(scope="module")
def run() -> dict[str, float]:
    """A run whose half and quarter fell as most do."""
    columns, _, losses = read_runs(RUNS)
    loss = {"loss": np.exp(losses)}
    return {name: float(np.median(values)) for name, values in {**columns, **loss}.items()}


def starts(run: dict[str, float], **changes: float) -> tuple[Start, Start]:
    """Return its quarter and half, with other losses."""
    losses = {**run, **changes}
    steps = run["steps"]
    return (
        Start(round(steps / 4), losses["quarter"], losses["quarter_own"]),
        Start(round(steps / 2), losses["half"], losses["half_own"]),
    )


def foretell(run: dict[str, float], quarter: Start, half: Start) -> tuple[float, float]:
    """Return how `run` ends, where the law of all runs expects what it did."""
    return predict_end(run, quarter, half, expected=run["loss"])


def test_runs_that_are_known_end_as_they_did(law: Law) -> None:
    columns, _, losses = read_runs(RUNS)
    shares, _ = law.predict(columns)
    off = np.log(shares) + np.log(columns["half"]) - losses
    assert np.sqrt((off**2).mean()) < 0.02
    assert len(end_features(columns)) == len(law.fit.means)


def test_a_model_that_knows_its_text_by_heart_has_less_left_to_learn(
    run: dict[str, float],
) -> None:
    near, _ = foretell(run, *starts(run, half_own=run["half"] * 0.95))
    far, _ = foretell(run, *starts(run, half_own=run["half"] * 0.5))
    assert near < far


def test_what_fell_quickly_falls_further(run: dict[str, float]) -> None:
    slow, _ = foretell(run, *starts(run, quarter=run["half"] * 1.04))
    quick, sure = foretell(run, *starts(run, quarter=run["half"] * 1.2))
    assert quick < slow < run["half"]
    assert 0.01 < sure < 0.06


def test_starts_of_other_lengths_are_read_by_the_doubling(run: dict[str, float]) -> None:
    """Where the loss falls by as much with each doubling, it matters little where one looks."""
    quarter, half = starts(run)
    whole, _ = foretell(run, quarter, half)
    later = round(0.55 * run["steps"])
    between = half.loss * (whole / half.loss) ** np.log2(later / half.steps)
    again, _ = foretell(run, quarter, half._replace(steps=later, loss=between))
    assert again == pytest.approx(whole, rel=0.01)


def test_what_the_law_of_all_runs_expects_counts_too(run: dict[str, float]) -> None:
    quarter, half = starts(run)
    low, high = (
        predict_end(run, quarter, half, expected=factor * run["loss"])[0] for factor in (0.9, 1.1)
    )
    assert low < foretell(run, quarter, half)[0] < high
    assert high / low == pytest.approx((1.1 / 0.9) ** EXPECTED)
