"""Noise: branches that change nothing but the seed seldom fail, whatever the number of seeds."""

import math
import random

import pytest

from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.files import write_json
from nanogpt2.experiments.gate.check import Report, compare_figures
from nanogpt2.experiments.gate.judge import Side
from nanogpt2.experiments.gate.noise import Noise, allowance, read_noise
from nanogpt2.experiments.gate.thresholds import Thresholds, make_thresholds

FILE = "metrics/eval.json"
# The validation losses of 40 seeds of a default run of before: benchmarks/README.md.
FORTY = (
    1.583912, 1.582155, 1.590710, 1.586737, 1.588880, 1.589298, 1.608250, 1.592672,
    1.583614, 1.593683, 1.584373, 1.592901, 1.590859, 1.591030, 1.590340, 1.594833,
    1.585131, 1.593559, 1.581033, 1.593300, 1.590997, 1.596576, 1.591597, 1.584756,
    1.581357, 1.601355, 1.593626, 1.587134, 1.584110, 1.586491, 1.591044, 1.599168,
    1.599268, 1.592916, 1.588454, 1.599556, 1.595797, 1.584952, 1.587255, 1.589206,
)  # fmt: skip
SPREAD = 0.0139  # of the loss of 40 small trainings: benchmarks/README.md


def rules(*keys: str, chance: float = 0.01) -> Thresholds:
    """Return thresholds that allow each figure its noise."""
    metrics = {FILE: {key: {"better": "lower", "allowed": "noise"} for key in keys}}
    return make_thresholds({"chance": chance, "metrics": metrics}, name="thresholds.yaml")


def test_an_allowance_is_the_quantile_of_the_table() -> None:
    # NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.2: one-sided 5% and 1%
    spread = math.sqrt(2.5)  # of 1 to 5
    assert allowance([1, 2, 3, 4, 5], 0.05) == pytest.approx(2.132 * spread * 2**0.5, rel=1e-3)
    assert allowance([1, 2, 3, 4, 5], 0.01) == pytest.approx(3.747 * spread * 2**0.5, rel=1e-3)


def share_failing(thresholds: Thresholds, *, seeds: int, pairs: int, shift: float = 0.0) -> float:
    """Return how many of so many pairs of runs fail by noise measured with so many seeds each.

    A pair's figures are `shift` apart in the mean. All figures of a run have a part in common.
    """
    draw = random.Random(0)
    keys = [threshold.key for threshold in thresholds.metrics]

    def run(mean: float) -> dict[str, float]:
        common = draw.gauss(mean, SPREAD * 0.8)
        return {key: common + draw.gauss(0, SPREAD * 0.6) for key in keys}

    failed = 0
    for _ in range(pairs):
        measured = [run(1.6) for _ in range(seeds)]
        figures = {key: [each[key] for each in measured] for key in keys}
        noise = Noise("noise.json", [*range(seeds)], {}, {FILE: figures})
        base, head = (Side({FILE: run(mean)}, {}) for mean in (1.6, 1.6 + shift))
        report = Report("main")
        compare_figures(base, head, thresholds, report, noise=lambda noise=noise: noise, spent={})  # type: ignore[misc]
        assert not report.faults
        failed += report.failed
    return failed / pairs


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_of_100_branches_that_change_nothing_fewer_than_5_fail(seeds: int) -> None:
    assert share_failing(rules("val"), seeds=seeds, pairs=100) < 0.05


def test_of_100_pairs_of_real_runs_fewer_than_5_fail() -> None:
    """Such as differ in their seed alone; five others measured the noise."""
    draw, failed = random.Random(0), 0
    for _ in range(100):
        *measured, base, head = draw.sample(FORTY, 7)
        failed += head - base > allowance(measured, 0.01)
    assert failed < 5


def test_the_chance_is_the_one_that_is_set_and_shared_by_all_figures() -> None:
    assert 0.003 < share_failing(rules("val"), seeds=5, pairs=1000) < 0.02
    assert 0.07 < share_failing(rules("val", chance=0.1), seeds=5, pairs=1000) < 0.13
    three = rules("val", "test", "other", chance=0.1)
    assert 0.04 < share_failing(three, seeds=5, pairs=1000) < 0.1


def test_a_branch_that_is_much_worse_fails() -> None:
    assert share_failing(rules("val"), seeds=5, pairs=200, shift=10 * SPREAD) > 0.9
    assert share_failing(rules("val"), seeds=5, pairs=200, shift=-10 * SPREAD) == 0


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (None, "noise.json: no such file: python -m nanogpt2 seeds --n 5, then"),
        ({"seeds": [1, 2, 3]}, "noise.json: it is not what --measure-noise writes; "),
        ({"seeds": [1, 2, 3], "figures": {}, "parameters": {}}, "it has no figures of"),
        (
            {"seeds": [1, 2], "figures": {FILE: {"val.loss": [1.0, 1.1]}}, "parameters": {}},
            "it has no figures of metrics/eval.json: val.loss; python -m nanogpt2 seeds",
        ),
        (
            {"seeds": [1, 2, 3], "figures": {FILE: {"val.loss": [1, 1, 1]}}, "parameters": {}},
            "is the same for all seeds, so it has no noise; allowed: a number or a share",
        ),
    ],
)
def test_noise_that_tells_nothing_has_a_line(content: object, line: str) -> None:
    if content is not None:
        write_json("noise.json", content)
    with pytest.raises(DataError) as raised:
        read_noise("noise.json").allowance(FILE, "val.loss", 0.01)
    assert line in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
