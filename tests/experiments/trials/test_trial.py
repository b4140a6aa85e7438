"""Trials side by side: which may run together, where, when one is hopeless, and what is shown."""

from pathlib import Path

import pytest
from imports import ROOT

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config import yaml12
from nanogpt2.experiments.trials import places
from nanogpt2.experiments.trials.board import table
from nanogpt2.experiments.trials.hopeless import is_hopeless
from nanogpt2.experiments.trials.runner import Grid
from nanogpt2.experiments.trials.trial import FAILED, FINISHED, RUNNING, STOPPED, Trial, make_trial

VALUES = yaml12.read(ROOT / "params.yaml")


def test_of_trials_that_share_a_training_one_runs_and_the_others_wait() -> None:
    settings = ["learning_rate=1e-3", "evaluate.stride=4", "evaluate.stride=8", "tokenizer=byte"]
    first, *_, other = trials = [make_trial(each, (each,), VALUES) for each in settings]
    shared = trials[1:3]
    assert shared[0].train_key == shared[1].train_key != first.train_key
    assert first.data_key == shared[0].data_key != other.data_key
    grid, ready = Grid(trials), set[str]()
    running = [grid.take([], ready)]
    assert running == [first]
    first.state = RUNNING
    assert grid.take([first], ready) is other  # the others read what the first prepares
    ready.add(first.data_key)
    assert grid.take([first], ready) is shared[0]
    shared[0].state = RUNNING
    assert grid.take([first, shared[0]], ready) is other  # not the same training
    other.state = RUNNING
    assert grid.take([first, *shared[:1], other], ready) is None
    shared[0].state = FINISHED
    assert grid.take([first, other], ready) is shared[1]


def finished(name: str, losses: list[float], of: int = 4) -> Trial:
    trial = Trial(name, (name,), "data", name, of=of, state=FINISHED)
    trial.losses = {step + 1: loss for step, loss in enumerate(losses)}
    return trial


def test_a_trial_is_hopeless_only_after_a_third_and_beside_four_others_at_the_same_step() -> None:
    others = [finished(str(n), [3.0, 2.0 + n, 1.0, 0.5]) for n in range(4)]
    slow = Trial("slow", ("slow",), "data", "slow", of=4, state=RUNNING, losses={1: 9.0})
    assert not is_hopeless(slow, others)  # a quarter of its steps
    slow.losses[2] = 4.0
    assert is_hopeless(slow, [*others, slow])  # the lowest of the four: 2, 3, 3, 3
    assert not is_hopeless(slow, others[:3])
    others[0].data_key = "other tokens"
    assert not is_hopeless(slow, others)
    others[0].data_key = "data"
    slow.losses[2] = 2.9
    assert not is_hopeless(slow, others)
    slow.losses = {1: 2.5, 2: 9.0}  # its lowest counts, not its last
    assert not is_hopeless(slow, others)
    slow.losses |= {3: 9.0, 4: 9.0}
    assert not is_hopeless(slow, others)  # it is through


def test_the_table_has_those_that_run_first_and_marks_the_best_that_has_finished() -> None:
    good, poor = finished("good", [3.0]), finished("poor", [3.0])
    good.figures, poor.figures = {"val": {"loss": 1.25}}, {"val": {"loss": 1.5}}
    runs = Trial("runs", ("dropout=0",), of=8, state=RUNNING, losses={2: 0.5}, left="3s")
    stops = Trial("stops", (), of=8, state=STOPPED, losses={4: 0.7})
    lines = table([poor, stops, good, runs, Trial("fails", (), state=FAILED)], "val", 20)
    assert [line.split()[0] for line in lines[1:-1]] == [
        *("running", "failed", "*", "finished", "stopped")
    ]
    assert lines[1].split() == ["running", "2/8", "~0.500", "3s", "runs", "dropout=0"]
    assert lines[3].split() == ["*", "finished", "4/4", "1.2500", "good", "good"]
    assert lines[-1] == "  1 running, 1 failed, 2 finished, 1 stopped"
    assert len(table([poor, good, runs], "val", 4)) == 4  # a low terminal


def test_trials_share_the_cores_or_have_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(places, "count_cores", lambda: 8)
    cpu = places.find_places(30, devices=["cpu"], processes=1, jobs=2)
    assert cpu == [{"OMP_NUM_THREADS": "4"}] * 2
    assert len(places.find_places(3, devices=["cpu"], processes=2, jobs=None)) <= 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    gpus = places.find_places(30, devices=["auto"], processes=1, jobs=None)
    assert gpus == [{"CUDA_VISIBLE_DEVICES": each} for each in "457"]
    pairs = places.find_places(30, devices=["cuda"], processes=2, jobs=None)
    assert pairs == [{"CUDA_VISIBLE_DEVICES": "4,5"}]
    with pytest.raises(ConfigError, match="--jobs of at most 3"):
        places.find_places(30, devices=["cuda"], processes=1, jobs=4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert places.visible_gpus() == []


def test_a_trial_is_recalled_only_on_the_base_that_it_ran_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trial = make_trial("a", ("dropout=0",), VALUES)
    trial.state, trial.base, trial.losses = FINISHED, "base", {1: 2.5}
    trial.write()
    for base, kept, state in (
        ("base", {"a"}, FINISHED),
        ("base", set[str](), "waiting"),  # its experiment was removed
        ("other", {"a"}, "waiting"),
    ):
        again = make_trial("a", ("dropout=0",), VALUES)
        again.recall(base, kept)
        assert (again.state, again.base) == (state, base)
    trial.state = STOPPED
    trial.write()
    for stopped, state in ((True, STOPPED), (False, "waiting")):  # which goes on with it
        again = make_trial("a", ("dropout=0",), VALUES)
        again.recall("base", set(), stopped=stopped)
        assert again.state == state
    again = make_trial("a", ("dropout=0",), VALUES)
    Path("logs/sweeps/a.json").write_text("{", encoding="utf-8")
    again.recall("base", {"a"})
    assert again.state == "waiting"
