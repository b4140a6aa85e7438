"""What a sweep says in the end, and what a search draws; no trial runs here."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from imports import ROOT

from nanogpt2.__main__ import main
from nanogpt2.config import yaml12
from nanogpt2.experiments.search import Search, name_of
from nanogpt2.experiments.sweep import describe_settings, describe_trials
from nanogpt2.experiments.trials.copies import Base
from nanogpt2.experiments.trials.space import Setting, read_space
from nanogpt2.experiments.trials.trial import FINISHED, FOLDER, STOPPED, Trial

VALUES = yaml12.read(ROOT / "params.yaml")
BASE = Base(Path(), "", "head", "tree", "cache")


def finish(trial: Trial, loss: float, *, tokens: int = 100, bits: float = 1.0) -> Trial:
    figures = {"loss": loss, "bits_per_byte": bits, "tokens": tokens}
    trial.state, trial.figures = FINISHED, {"val": figures, "test": {**figures, "loss": loss + 1}}
    return trial


def trial_of(*setting: str) -> Trial:
    return Trial(name_of(setting), setting)


def test_the_best_by_validation_is_the_only_one_whose_test_loss_is_told() -> None:
    good, poor = finish(trial_of("a=1", "b=2"), 1.25), finish(trial_of("a=2", "b=2"), 1.5)
    stopped = trial_of("a=3", "b=2")
    stopped.state, stopped.losses, stopped.of = STOPPED, {40: 0.5}, 100
    lines = describe_trials([poor, stopped, good], ["a"])
    assert [line.split() for line in lines[:4]] == [
        ["val", "loss", "experiment", "a"],
        ["*", "1.2500", good.name, "1"],
        ["1.5000", poor.name, "2"],
        ["stopped", "at", "step", "40", "of", "100", stopped.name, "3"],
    ]
    assert f"dvc exp apply {good.name}" in lines[4]
    assert lines[5] == "its test loss, which chose nothing: 2.2500"
    assert "2.5000" not in "\n".join(lines)
    bits = finish(trial_of("a=4", "b=2"), 9.0, tokens=30, bits=0.5)
    assert describe_trials([good, bits], ["a"])[1].split() == ["*", "0.5000", bits.name, "4"]


def test_settings_are_compared_with_the_base_and_corrected_for_their_number() -> None:
    def runs(setting: Setting, *losses: float) -> list[Trial]:
        return [finish(trial_of(*setting, f"seed={n}"), loss) for n, loss in enumerate(losses)]

    lines = describe_settings(
        {
            (): runs((), 2.0, 2.1, 2.2),
            ("a=1",): runs(("a=1",), 1.0, 1.11, 1.2),
            ("a=2",): runs(("a=2",), 2.01, 2.09, 2.2),
        }
    )
    rows = [line.split() for line in lines[:4]]
    assert rows[1][-2:] == ["better", "a=1"]
    assert rows[1][:4] == ["*", "1.1033", "0.1002", "-0.9967"]
    assert any(row[-5:] == ["base", "params.yaml", "as", "it", "is"] for row in rows)
    assert lines[4].startswith("p: paired t test by seed, two-sided, corrected for 2 settings")
    assert lines[-1] == "its test loss, which chose nothing: 2.1033"


def test_a_dry_run_lists_the_trials_and_a_mistake_is_told_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    options = ["sweep", "--dry-run", "-S", "learning_rate=1e-3,5e-4", "-S", "n_layer=4"]
    done = CliRunner().invoke(main, options)
    assert done.stdout.splitlines() == [
        *("2 trials", "learning_rate=1e-3 n_layer=4", "learning_rate=5e-4 n_layer=4")
    ]
    done = CliRunner().invoke(main, [*options, "--seeds", "3", "-S", "seed=1"])
    assert done.stderr == "found seed=; allowed: key=value, where key is not seed\n"
    done = CliRunner().invoke(main, [*options, "--search", "3", "--seed", "-1"])
    assert (done.exit_code, "-1 is not in the range 0<=x<=4294967295" in done.stderr) == (2, True)
    done = CliRunner().invoke(main, [*options, "-S", "n_head=3"])
    assert done.stderr.startswith("n_head: found 3; allowed: a divisor of half of n_embd")


def search_to_its_end(count: int, *, cut: int | None = None) -> list[Setting]:
    """Return what is drawn where a trial's loss is its learning rate; made anew after `cut`."""
    space = read_space(["learning_rate=loguniform(1e-4,1e-1)", "n_head=1,3,4", "n_layer=2"])
    search = Search(space, VALUES, BASE, count=count, seed=1)
    drawn = 0
    while trial := search.take([], set()):
        drawn += 1
        if drawn == cut:
            losses = {each.name: each for each in search.trials}
            search = Search(space, VALUES, BASE, count=count, seed=1)
            for each in search.trials:
                if losses[each.name].state == FINISHED:
                    finish(each, losses[each.name].figure("val", "loss"))
            continue
        finish(trial, float(trial.setting[0].partition("=")[2]))
    return [each.setting for each in search.trials]


def test_a_search_that_was_killed_draws_what_it_would_have_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.chdir(tmp_path)
    FOLDER.mkdir(parents=True)
    settings = search_to_its_end(14)
    for file in FOLDER.glob("search-*.json"):
        file.unlink()
    assert search_to_its_end(14, cut=12) == settings
    assert len(set(settings)) == 14
    assert {each[1] for each in settings} == {"n_head=1", "n_head=4"}  # 3 divides no n_embd
    rates = [float(each[0].partition("=")[2]) for each in settings]
    assert sum(rates[10:]) / 4 < sum(rates[:10]) / 10  # it has learnt that low is better
