"""Advice on a run that ends too early, or far behind the recorded one."""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner
from imports import ROOT

from nanogpt2.config import yaml12
from nanogpt2.config.config import Config, get_config
from nanogpt2.report.advice import behind, steep
from nanogpt2.report.recorded import RecordedRun, read_recorded, val_loss_at
from stages import prepare, train

Rows = Sequence[dict[str, float]]
RECORDED = [1.94989, 1.806954, 1.754184, 1.72161, 1.681984, 1.646575, 1.614619, 1.604116]
LOW_RATE = [4.9053, 3.6511, 3.1746, 2.9728, 2.8401, 2.7797]  # 300 steps at 5e-4 instead of 8e-3
SHORT = [2.6972, 2.2582, 2.0410, 1.9211, 1.8476, 1.8105]  # 300 steps of the recorded run's 1600
PARAMS = {
    "corpus": "text.txt", "block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16,
    "batch_size": 4, "max_iters": 8, "eval_interval": 2, "eval_iters": 2, "device": "cpu",
    "learning_rate": 0.01, "optimizer": "adamw", "save_checkpoint": False,
}  # fmt: skip


def rows(losses: Sequence[float], interval: int) -> Rows:
    return [
        {"iter": float(interval * (number + 1)), "val_loss": loss}
        for number, loss in enumerate(losses)
    ]


# --- Falling at the end ---


@pytest.mark.parametrize(("losses", "fall"), [(LOW_RATE, "0.13"), (SHORT, "0.07")])
def test_a_run_that_still_falls_steeply_at_its_end_says_what_to_try(
    losses: Sequence[float], fall: str
) -> None:
    assert steep(rows(losses, 50), 300) == (
        f"advice: val loss still falls steeply at the end, by {fall} in the last quarter of the"
        " steps: try more max_iters, or a higher learning_rate"
    )


@pytest.mark.parametrize(
    ("history", "max_iters"),
    [
        (rows(LOW_RATE, 50), 600),  # not at its end
        (rows(RECORDED, 200), 1600),
        (rows([2.0, 1.5, 1.4, 1.5, 1.6], 10), 50),  # over-fitting
        (rows([3.0], 300), 300),  # one evaluation shows no slope
        (rows([2.0, 2.0, 2.0, 2.0], 10), 40),
    ],
)
def test_a_run_that_has_come_to_rest_or_goes_on_does_not(history: Rows, max_iters: int) -> None:
    assert steep(history, max_iters) is None


# --- Beside the recorded run ---


def test_a_run_far_behind_the_recorded_one_says_so_and_what_is_changed() -> None:
    recorded = RecordedRun(rows(RECORDED, 200), "learning_rate 0.008 -> 0.0005")
    assert behind(rows(LOW_RATE, 50), recorded, 300) == (
        "advice: far behind the recorded run: val loss 2.7797 at iteration 300, where that one had"
        " 1.8784. Changed since: learning_rate 0.008 -> 0.0005. Try one change at a time, or the"
        " recorded values"
    )


@pytest.mark.parametrize(
    ("history", "max_iters"),
    [
        (rows(LOW_RATE, 50)[:5], 1600),  # in its first half it may still catch up
        (rows([1.95, 1.85, 1.80], 200), 600),  # hardly behind
        (rows([4.0, 3.5], 50), 100),  # before the first row
        (rows([4.0, 3.5], 1000), 2000),  # after the last
    ],
)
def test_a_run_near_the_recorded_one_does_not(history: Rows, max_iters: int) -> None:
    assert behind(history, RecordedRun(rows(RECORDED, 200), ""), max_iters) is None


def test_without_a_recorded_run_nothing_is_said() -> None:
    assert behind(rows(LOW_RATE, 50), None, 300) is None


def test_between_two_rows_a_loss_is_on_the_line_that_joins_them() -> None:
    history = rows([4.0, 2.0], 10)
    assert [val_loss_at(history, step) for step in (9, 10, 15, 20, 21)] == [None, 4, 3, 2, None]
    assert val_loss_at([], 5) is None


# --- What git has ---


@pytest.fixture
def config() -> Config:
    """The configuration of a project, the current folder, whose run is recorded in git."""
    text = yaml12.replace_values((ROOT / "params.yaml").read_text(encoding="utf-8"), PARAMS)
    Path("params.yaml").write_text(text, encoding="utf-8")
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    Path("plots").mkdir()
    Path("plots/loss.csv").write_text("iter,val_loss\n2,0.5\n8,0.25\n", encoding="utf-8")
    git("init", "--quiet")
    git("add", "params.yaml", "plots")
    named = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    git(*named, "commit", "--quiet", "--message", "recorded")
    shutil.rmtree("plots")  # as DVC does before a stage
    return get_config("params.yaml")


def git(*words: str) -> None:
    subprocess.run(["git", *words], check=True)


def recorded(config: Config) -> RecordedRun | None:
    return read_recorded(config, Path("plots/loss.csv"), Path("params.yaml"))


def test_the_recorded_run_is_that_of_the_last_commit(config: Config) -> None:
    found = recorded(get_config("params.yaml", learning_rate=5e-4, n_layer=2))
    assert found is not None
    assert found.history == [{"iter": 2.0, "val_loss": 0.5}, {"iter": 8.0, "val_loss": 0.25}]
    assert sorted(found.changes.split(", ")) == [
        "learning_rate 0.01 -> 0.0005", "n_layer 1 -> 2",
    ]  # fmt: skip
    same = recorded(config)
    assert same is not None
    assert same.changes == ""


@pytest.mark.parametrize("key", ["corpus", "tokenizer", "val_fraction"])
def test_a_run_of_another_text_is_not_comparable(config: Config, key: str) -> None:
    other = {"corpus": "other.txt", "tokenizer": "byte", "val_fraction": 0.2}[key]
    assert recorded(get_config("params.yaml", **{key: other})) is None


def test_pieces_of_words_compare_where_as_many_were_learnt(config: Config) -> None:
    text = Path("params.yaml").read_text(encoding="utf-8")
    damage("params.yaml", yaml12.replace_values(text, {"tokenizer": "bpe", "vocab_size": 300}))()
    assert recorded(get_config("params.yaml")) is not None
    assert recorded(get_config("params.yaml", vocab_size=400)) is None


def damage(name: str, text: str) -> Callable[[], None]:
    def commit() -> None:
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text, encoding="utf-8")
        git("add", name)
        git("-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "damaged")

    return commit


@pytest.mark.parametrize(
    "change",
    [
        lambda: shutil.rmtree(".git"),
        damage("plots/loss.csv", "iter,val_loss\n2,low\n"),
        damage("plots/loss.csv", "step,loss\n2,0.5\n"),
        damage("params.yaml", "n_head: 5\nn_embd: 64\n"),
        damage("params.yaml", "]["),
    ],
    ids=["no git", "no number", "other columns", "wrong values", "no YAML"],
)
def test_what_cannot_be_read_is_no_recorded_run(config: Config, change: Callable[[], None]) -> None:
    change()
    assert recorded(config) is None


def test_the_stage_train_looks_at_the_recorded_run(config: Config) -> None:
    assert CliRunner().invoke(prepare.main, []).exit_code == 0
    shown = CliRunner().invoke(train.main, [])
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("advice: far behind the recorded run: val loss ") == 1
