"""Clock and choice: what was timed is known, and no choice takes longer than there is."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nanogpt2.base.system.errors import DataError
from nanogpt2.config.config import make_config
from nanogpt2.experiments.plan import planner
from nanogpt2.experiments.plan.choose import Facts, Grid, Planned, Tokens
from nanogpt2.experiments.plan.ends import Start
from nanogpt2.experiments.plan.laws import read_law
from nanogpt2.experiments.plan.pilot import PILOT
from nanogpt2.experiments.plan.plan import make_changes
from nanogpt2.experiments.plan.planner import Planner, kind_of, shape_of
from nanogpt2.experiments.plan.recipe import Choice, count_flops, make_values
from nanogpt2.experiments.plan.timing import Clock, Timing, time_steps
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.tokenizer import CharTokenizer

SHAPES = [
    {"width": 64, "layers": 2, "block": 128, "batch": 16, "vocab_size": 100},
    {"width": 128, "layers": 4, "block": 128, "batch": 16, "vocab_size": 100},
    {"width": 256, "layers": 4, "block": 256, "batch": 8, "vocab_size": 100},
]


def seconds_of(shape: dict[str, int]) -> float:
    """A machine of 100 gigaflops that needs 2 ms a layer."""
    flops = count_flops(*(shape[part] for part in ("width", "layers", "block", "vocab_size")))
    return shape["batch"] * shape["block"] * float(flops) / 1e11 + 0.002 * shape["layers"]


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    for shape in SHAPES:
        clock.add(shape, seconds_of(shape))
    return clock


@pytest.fixture
def facts() -> Facts:
    tokenizer = CharTokenizer("".join(map(chr, range(32, 97))))
    orders = [3.3, 2.5, 2.0, 1.7, 1.6, 1.6, 1.7]
    fewer = [3.3, 2.5, 2.1, 1.85, 1.8, 1.9, 2.0]
    figures = {f"order_{n}": loss for n, loss in enumerate(orders)}
    figures |= {f"fewer_{n}": loss for n, loss in enumerate(fewer)}
    figures |= {"kinds": 65, "counted": 1e6, "characters": 1e6}
    return Facts(figures, [2.2, 1.95, 1.75], [Tokens(tokenizer, 0, 1_000_000)])


def test_the_clock_knows_what_was_timed_and_a_law_that_holds_beyond_it(clock: Clock) -> None:
    for shape in SHAPES:
        assert clock.predict(shape)[0] == pytest.approx(seconds_of(shape), rel=0.02)
    between = {"width": 192, "layers": 3, "block": 128, "batch": 16, "vocab_size": 100}
    assert clock.predict(between)[0] == pytest.approx(seconds_of(between), rel=0.1)
    clock.add(between, seconds_of(between))
    clock.add(between, 2 * seconds_of(between))  # it has its own speed, and the last look counts
    assert clock.predict(between)[0] == pytest.approx(2 * seconds_of(between), rel=0.05)


def test_a_choice_takes_the_time_there_is_and_more_time_is_never_worse(
    clock: Clock, facts: Facts
) -> None:
    grid, law = Grid(facts), read_law()
    found = [grid.best(law, clock, seconds) for seconds in (30.0, 120.0, 480.0)]
    for planned, seconds in zip(found, (30.0, 120.0, 480.0), strict=True):
        assert 0.9 * seconds < planned.choice.steps * planned.step_seconds < seconds
        make_config({**make_values(planned.choice), "vocab_size": 65}, name="plan")
    assert found[0].loss > found[1].loss > found[2].loss


def test_too_little_time_is_an_error_of_one_line(clock: Clock, facts: Facts) -> None:
    with pytest.raises(DataError, match="give more") as error:
        Grid(facts).best(read_law(), clock, 0.5)
    assert "\n" not in str(error.value)


def test_twice_the_text_is_easier_to_predict(facts: Facts) -> None:
    twice = facts.twice()
    assert twice.figures["characters"] == 2e6
    assert twice.figures["order_4"] < facts.figures["order_4"]
    assert twice.tokens[0].train_tokens == 2_000_000


def test_flops_are_those_of_the_model_that_is_made() -> None:
    choice = Choice(bpe=0, width=64, layers=2, block=32, batch=4, steps=300, dropout=0.0)
    model = GPT({**make_values(choice), "vocab_size": 100})
    matrices = sum(
        p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "wte" not in n
    )
    attention = 2 * choice.layers * choice.width * choice.block  # scores and sums, half of them
    flops = count_flops(choice.width, choice.layers, choice.block, 100)
    assert flops == pytest.approx(6 * (matrices + attention / 2), rel=0.02)


def test_steps_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = {**make_values(PILOT), "n_layer": 1, "n_embd": 32, "n_head": 1, "vocab_size": 64}
    timing = time_steps({**values, "device": "cpu"}, seconds=0.01)
    assert 0 < timing.forward < timing.step < 5
    assert timing.memory > np.float64(1e7)


@pytest.mark.parametrize(
    ("forward", "evaluations", "share"), [(0.001, 20, 0.04), (0.09, 10, 0.04), (0.5, 5, 0.12)]
)
def test_evaluations_take_a_small_part_of_the_time(
    facts: Facts, forward: float, evaluations: int, share: float
) -> None:
    """Fewer where a batch takes long, but some always."""
    choice = Choice(bpe=0, width=64, layers=2, block=128, batch=16, steps=1000, dropout=0.0)
    planner: Any = SimpleNamespace(time=lambda *_: Timing(3 * forward, forward, 0))
    found = Planned(choice, facts.tokens[0], 1.5, 0.02, 3 * forward)
    values = make_changes(planner, found, 180.0)
    assert 1000 // values["eval_interval"] == evaluations
    assert values["eval_iters"] >= 4
    assert 2 * evaluations * values["eval_iters"] * forward <= share * 180


@pytest.fixture
def known(facts: Facts, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Planner:
    """A planner that has timed nothing, and takes a minute for a rehearsal at most."""
    monkeypatch.setattr(planner, "TIMED", ())
    monkeypatch.setattr(planner, "time_steps", lambda *_, **__: Timing(0.1, 0.03, 0))
    found = Planner(facts, ("some text", "some more"), "cpu", start=10.0, rehearsing=60.0)
    found.clock = clock
    return found


CHOICE = Choice(bpe=0, width=128, layers=4, block=128, batch=16, steps=1000, dropout=0.1)


def rehearsing(monkeypatch: pytest.MonkeyPatch, *, loss: float, own: float, step: float) -> None:
    """Let each rehearsal find just this."""
    monkeypatch.setattr(planner, "rehearse", lambda *_, **__: ([[loss, own]], step))


def test_half_of_the_steps_say_how_the_run_ends_and_how_long_it_takes(
    known: Planner, facts: Facts, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = Planned(CHOICE, facts.tokens[0], 1.5, 0.04, 0.1)
    rehearsing(monkeypatch, loss=1.7, own=1.6, step=0.1)
    known.rehearse(planned)
    assert known.starts == {kind_of(CHOICE): Start(250, 1.7, 1.6)}
    rehearsing(monkeypatch, loss=1.55, own=1.4, step=0.16)
    found, half = known.finish(planned, 120.0)
    assert half == Start(500, 1.55, 1.4)
    assert 1.3 < found.loss < 1.55
    assert found.spread < planned.spread
    assert found.step_seconds == pytest.approx((250 * 0.1 + 500 * 0.16) / 750)
    assert found.choice.steps == int((120 - 10) * 0.94 / found.step_seconds)
    assert known.clock.predict(shape_of(CHOICE, found.tokens.tokenizer))[0] == pytest.approx(
        found.step_seconds, rel=0.02
    )
    (again,), _ = known.law.predict(known.columns(found.choice, found.tokens), "this text")
    assert again == pytest.approx(found.loss, rel=0.01)


@pytest.mark.parametrize(
    ("step", "rehearsed"), [(0.13, True), (0.1, False)], ids=["longer than it may", "no start"]
)
def test_no_half_is_trained_where_it_would_say_nothing_or_take_too_long(
    known: Planner, facts: Facts, monkeypatch: pytest.MonkeyPatch, step: float, rehearsed: bool
) -> None:
    planned = Planned(CHOICE, facts.tokens[0], 1.5, 0.04, step)
    rehearsing(monkeypatch, loss=1.7, own=1.6, step=step)
    if rehearsed:
        known.rehearse(planned)
    monkeypatch.setattr(planner, "rehearse", None)
    found, half = known.finish(planned, 120.0)
    assert found is planned
    assert half is None
