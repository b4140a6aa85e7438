"""The law: a Gaussian process as its formula says, sure of what it knows and unsure elsewhere."""

import numpy as np
import pytest
import torch

from nanogpt2.experiments.plan.laws import RUNS, Law, features, read_law, read_runs


@pytest.fixture(scope="module")
def law() -> Law:
    return read_law()


@pytest.fixture(scope="module")
def columns() -> dict[str, np.ndarray]:
    return read_runs(RUNS)[0]


def one(columns: dict[str, np.ndarray], at: int, **changes: float) -> dict[str, float]:
    """Return run `at` of the table, with `changes`."""
    return {**{name: float(values[at]) for name, values in columns.items()}, **changes}


def test_predictions_are_those_of_the_formula(law: Law, columns: dict[str, np.ndarray]) -> None:
    """In double precision by torch, from the definitions, for a text that is known."""
    f = law.fit
    x = torch.from_numpy(law.known)
    text = law.texts[0]
    asked = torch.from_numpy(law.scale(one(columns, 0, steps=777.0, dropout=0.1)))

    def covariance(a: torch.Tensor, b: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
        scaled = [each / torch.from_numpy(f.lengths) for each in (a, b)]
        distance = (scaled[0][:, None] - scaled[1][None]).pow(2).sum(-1).sqrt()
        root5 = 5**0.5 * distance
        smooth = f.smooth**2 * (1 + root5 + root5**2 / 3) * torch.exp(-root5)
        own = f.shared**2 * torch.exp(-0.5 * (distance / f.shared_length) ** 2) + f.offset**2
        return smooth + (a * torch.from_numpy(f.weights) ** 2) @ b.T + same * own

    same = torch.from_numpy(law.texts[:, None] == law.texts)
    within = covariance(x, x, same) + f.noise**2 * torch.eye(len(x), dtype=torch.float64)
    across = covariance(asked, x, torch.from_numpy(law.texts == text)[None])
    inverse = torch.linalg.inv(within)
    mean = f.mean + across @ inverse @ torch.from_numpy(law.losses - f.mean)
    own = covariance(asked, asked, torch.ones(1, 1)) - across @ inverse @ across.T
    losses, spreads = law.predict(one(columns, 0, steps=777.0, dropout=0.1), text)
    assert losses[0] == pytest.approx(float(mean.exp()), rel=1e-6)
    assert spreads[0] == pytest.approx(float((own + f.noise**2).sqrt()), rel=1e-4)


def test_known_runs_are_known(law: Law, columns: dict[str, np.ndarray]) -> None:
    for at in (0, 50, 100):
        losses, spreads = law.predict(one(columns, at), law.texts[at])
        assert losses[0] == pytest.approx(np.exp(law.losses[at]), rel=4 * law.fit.noise + 0.01)
        assert spreads[0] < 0.05


def test_a_run_on_the_text_changes_what_is_said_of_the_next(
    law: Law, columns: dict[str, np.ndarray]
) -> None:
    asked = one(columns, 3, steps=900.0)
    before, unsure = law.predict(asked, "mine")
    known = law.given(asked, [1.2 * before[0]], "mine")
    after, sure = known.predict(one(columns, 3, steps=950.0), "mine")
    elsewhere, _ = known.predict(one(columns, 3, steps=950.0), "another")
    assert after[0] == pytest.approx(1.2 * before[0], rel=0.05)
    assert sure[0] < unsure[0]
    assert len(law.losses) + 1 == len(known.losses)
    assert elsewhere[0] < after[0]


def test_runs_far_from_all_others_are_told_apart(law: Law, columns: dict[str, np.ndarray]) -> None:
    assert law.reaches(columns).all()
    assert not law.reaches(one(columns, 0, steps=1e9)).any()
    _, near = law.predict(one(columns, 0), "new")
    _, far = law.predict(one(columns, 0, steps=1e9, width=4096.0, layers=96.0), "new")
    assert far[0] > 2 * near[0]


def test_features_have_the_names_and_the_order_of_the_file(columns: dict[str, np.ndarray]) -> None:
    assert len(features(columns)) == len(read_law().fit.means)
    assert all(np.isfinite(each).all() for each in features(columns).values())
