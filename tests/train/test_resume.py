"""Going on after a crash: to the bit, and only from one's own state."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
import torch
from click.testing import CliRunner

from nanogpt2.__main__ import main
from nanogpt2.base.system.errors import TrainingError
from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.record import TrainingRecord
from nanogpt2.train.trainer import Trainer
from nanogpt2.train.unfinished.resume import StateFiles

ROOT = Path(".resume")
Ended = tuple[GPT, TrainingRecord]


class CrashError(Exception):
    """Stands for the end of the process: nothing catches it."""


def crash_at(model: GPT, calls: int) -> None:
    """Let the model's forward pass number `calls` be the last."""
    left = iter(range(calls))

    def hook(*_: object) -> None:
        if next(left, None) is None:
            raise CrashError

    model.h[0].register_forward_pre_hook(hook)


def run(
    config: Config, text: str, *, crash: int | None = None, **options: object
) -> tuple[GPT, TrainingRecord]:
    model = GPT(config)
    if crash is not None:  # counted from the first step, after the losses of iteration 0
        crash_at(model, crash + (0 if list(ROOT.glob("*/*.pt")) else 4))
    data = CharDataset(text, config.block_size)
    return model, Trainer(model, config).train(data, data, **options)  # type: ignore[arg-type]


def same(first: tuple[GPT, TrainingRecord], second: tuple[GPT, TrainingRecord]) -> bool:
    a, b = ({**model.state_dict(), **record.best_weights} for model, record in (first, second))
    equal = all(torch.equal(a[name], b[name]) for name in a)
    return equal and first[1].history == second[1].history


@pytest.fixture
def config(tiny: Config) -> Config:
    changes = {"dropout": 0.2, "max_iters": 20, "eval_interval": 6, "checkpoint_interval": 4}
    return get_config({**tiny.to_dict(), **changes})


def test_a_run_cut_off_anywhere_ends_as_if_it_had_not_been(config: Config, text: str) -> None:
    unbroken = run(config, text)
    # 20 steps and 4 evaluations of 2 x 2 batches: 36 forward passes
    for seed in range(3):
        random.seed(seed)
        for _ in range(3):
            with pytest.raises(CrashError):
                run(config, text, crash=random.randrange(4, 16))
        assert same(run(config, text), unbroken)
        assert not list(ROOT.glob("*"))  # a run that ended well leaves nothing


def test_it_says_from_where_it_goes_on(
    config: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CrashError):
        run(config, text, crash=10)
    run(config, text)
    assert "going on from iteration 4; NANOGPT2_RESUME=0 starts afresh" in capsys.readouterr().out


def crashed_then(config: Config, text: str, capsys: pytest.CaptureFixture[str]) -> bool:
    """Return whether a run of `config` goes on from a crashed one of the fixture's."""
    run(config, text)
    return "going on" in capsys.readouterr().out


def test_another_configuration_never_goes_on_from_it(
    config: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CrashError):
        run(config, text, crash=10)
    changes: list[dict[str, object]] = [
        {"learning_rate": 2e-3},
        {"seed": 5},
        {"n_layer": 1},
        {"dropout": 0.1},
    ]
    for change in changes:
        other = get_config({**config.to_dict(), **change})
        assert not crashed_then(other, text, capsys), change
    assert crashed_then(config, text, capsys)


def test_another_text_never_goes_on_from_it(
    config: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CrashError):
        run(config, text, crash=10)
    assert not crashed_then(config, text + "!", capsys)


AFRESH = "warning: starting afresh: "


def left_aside(capsys: pytest.CaptureFixture[str]) -> str:
    """Return what was said of an unfinished run that is not continued; nothing is asked twice."""
    lines = [line for line in capsys.readouterr().out.splitlines() if AFRESH in line]
    assert len(lines) <= 1
    return "".join(lines)


def crashed_folder(config: Config, text: str) -> Path:
    """Let a run of `config` crash; return where its state lies."""
    before = set(ROOT.glob("*/"))
    with pytest.raises(CrashError):
        run(config, text, crash=10)
    (folder,) = set(ROOT.glob("*/")) - before
    return folder


def test_an_unfinished_run_of_other_code_is_told_and_kept(
    config: Config,
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as before:  # the code as it is without a room
        before.setattr("nanogpt2.train.states.TRAINING_ROOMS", ("config", "train"))
        folder = crashed_folder(config, text)
    kept = {path: path.read_bytes() for path in folder.iterdir()}
    listed = CliRunner().invoke(main, ["runs"]).stdout
    assert "  of other code  max_iters 20" in listed
    assert left_aside(capsys) == ""
    run(config, text)
    assert left_aside(capsys).endswith(
        f"{AFRESH}{folder} has an unfinished run, at iteration 4, from before a change of the"
        " library's code; undo that and the same command goes on there; python -m nanogpt2 runs"
        f" prune {folder.name} removes it"
    )
    assert {path: path.read_bytes() for path in folder.iterdir()} == kept
    with monkeypatch.context() as before:
        before.setattr("nanogpt2.train.states.TRAINING_ROOMS", ("config", "train"))
        assert crashed_then(config, text, capsys)
    assert not list(ROOT.glob("*"))


def test_one_of_a_version_that_did_not_note_its_code_is_told_too(
    config: Config, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    older = crashed_folder(config, text).rename(ROOT / ("0" * 16))
    (older / "facts.json").unlink()
    assert "  of other code  max_iters 20" in CliRunner().invoke(main, ["runs"]).stdout
    run(config, text)
    assert "from before a change of the library's code;" in left_aside(capsys)
    run(get_config({**config.to_dict(), "learning_rate": 2e-3}), text)
    assert left_aside(capsys) == ""  # another run, for all that is known


def test_what_has_changed_since_is_named_of_the_run_most_like_this_one(
    config: Config, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = crashed_folder(config, text)
    changes: dict[str, dict[str, object]] = {
        "learning_rate 0.001 -> 0.002": {"learning_rate": 2e-3},
        f"seed {config.seed} -> 5, n_layer 2 -> 1": {"n_layer": 1, "seed": 5},
    }
    for said, change in changes.items():
        run(get_config({**config.to_dict(), **change}), text)
        line = left_aside(capsys)
        assert f"{folder} has an unfinished run, at iteration 4," in line
        assert f"from before a change of {said};" in line
    data = CharDataset(text + "!", config.block_size)
    Trainer(GPT(config), config, resume_root=ROOT.absolute()).train(data, data)
    line = left_aside(capsys)
    assert f"{AFRESH}{folder} has" in line  # as short where the whole path is given
    assert "from before a change of the data;" in line
    other = {"learning_rate": 2e-3, "n_layer": 1, "seed": 5, "dropout": 0.1}
    run(get_config({**config.to_dict(), **other}), text)
    assert left_aside(capsys) == ""  # another run
    nearer = crashed_folder(get_config({**config.to_dict(), **other}), text)
    run(get_config({**config.to_dict(), **other, "seed": 6}), text)
    assert f"{nearer} has an unfinished run" in left_aside(capsys)
    monkeypatch.setenv("NANOGPT2_RESUME", "0")
    run(get_config({**config.to_dict(), "seed": 6}), text)
    assert left_aside(capsys) == ""  # which was asked for


def test_one_that_is_under_way_damaged_or_without_a_state_is_not_told(
    config: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = get_config({**config.to_dict(), "learning_rate": 2e-3})
    folder = crashed_folder(config, text)
    with StateFiles(folder).locked():
        run(other, text)
        assert left_aside(capsys) == ""
    for damaged in ("{", "[]", "{}", '{"config": 1}'):
        (folder / "facts.json").write_text(damaged, encoding="utf-8")
        run(other, text)
        assert left_aside(capsys) == "", damaged
        assert "iteration 4" in CliRunner().invoke(main, ["runs"]).stdout
    for path in folder.glob("*.pt"):
        path.unlink()
    (folder / "facts.json").unlink()
    run(other, text)
    assert left_aside(capsys) == ""
    listed = CliRunner().invoke(main, ["runs"]).stdout
    assert "iteration 0" in listed
    assert "of other code" not in listed


def test_facts_of_the_machine_may_change(
    config: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CrashError):
        run(config, text, crash=10)
    changes = {"checkpoint_interval": 7, "checkpoint_dir": "other", "sample": {"seed": 3}}
    assert crashed_then(get_config({**config.to_dict(), **changes}), text, capsys)


def test_it_can_start_afresh(
    config: Config,
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(CrashError):
        run(config, text, crash=10)
    monkeypatch.setenv("NANOGPT2_RESUME", "0")
    assert not crashed_then(config, text, capsys)


def test_without_save_checkpoint_nothing_is_kept(config: Config, text: str) -> None:
    with pytest.raises(CrashError):
        run(get_config({**config.to_dict(), "save_checkpoint": False}), text, crash=20)
    assert not ROOT.exists()


def test_the_last_two_states_are_kept_at_the_interval(config: Config, text: str) -> None:
    with pytest.raises(CrashError):
        run(config, text, crash=22)
    names = sorted(path.name for path in ROOT.glob("*/*.pt"))
    assert [int(name.split("-")[0]) for name in names] == [8, 12]


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: random.randrange(path.stat().st_size)])


@pytest.mark.parametrize("damage", [flip_bit, truncate])
def test_a_damaged_state_is_skipped_for_the_one_before_it(
    config: Config,
    text: str,
    damage: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    unbroken = run(config, text)
    with pytest.raises(CrashError):
        run(config, text, crash=22)
    (folder,) = (path for path in ROOT.iterdir() if path.is_dir())
    states = StateFiles(folder)
    newest = states.paths()[-1]
    whole = newest.read_bytes()
    random.seed(1)
    for _ in range(8):
        newest.write_bytes(whole)
        damage(newest)
        state, warnings = states.load()
        assert state is not None
        assert state["record"]["step"] == 8
        assert warnings == [f"warning: {newest} is damaged: skipped"]
    assert same(run(config, text), unbroken)
    assert "is damaged: skipped" in capsys.readouterr().out


def test_when_all_states_are_damaged_it_starts_from_scratch(config: Config, text: str) -> None:
    unbroken = run(config, text)
    with pytest.raises(CrashError):
        run(config, text, crash=22)
    for path in ROOT.glob("*/*.pt"):
        truncate(path)
    assert same(run(config, text), unbroken)


def test_results_that_cannot_be_saved_do_not_cost_the_run(config: Config, text: str) -> None:
    def fail(record: TrainingRecord, weights: object) -> None:
        raise TrainingError("no room")

    unbroken = run(config, text)
    with pytest.raises(TrainingError, match="no room"):
        run(config, text, save=fail)
    again = run(config, text, crash=0)  # not one forward pass is needed any more
    assert same(again, unbroken)


def test_unfinished_runs_are_listed_and_pruned(config: Config, text: str) -> None:
    for seed in (1, 2):
        with pytest.raises(CrashError):
            run(get_config({**config.to_dict(), "seed": seed}), text, crash=10)
    command = CliRunner()
    lines = command.invoke(main, ["runs"]).stdout.splitlines()
    assert len(lines) == 2
    assert all("iteration 4" in line and "max_iters 20" in line for line in lines)
    name = lines[0].split()[0]
    assert "removed 1 unfinished run," in command.invoke(main, ["runs", "prune", name]).output
    assert command.invoke(main, ["runs", "prune", "none"]).exit_code == 1
    assert "removed 1 unfinished run," in command.invoke(main, ["runs", "prune"]).output
    assert "no unfinished runs" in command.invoke(main, ["runs"]).output


def test_a_second_run_of_the_same_is_refused_and_not_pruned(
    config: Config, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CrashError):
        run(config, text, crash=10)
    (folder,) = (path for path in ROOT.iterdir() if path.is_dir())
    monkeypatch.setattr("nanogpt2.train.unfinished.resume.LOCK_SECONDS", 0.2)
    with StateFiles(folder).locked():
        with pytest.raises(TrainingError, match="this run is under way in another process"):
            run(config, text)
        assert "under way" in CliRunner().invoke(main, ["runs"]).output
        CliRunner().invoke(main, ["runs", "prune"])
    assert folder.exists()


@pytest.fixture
def under_way(config: Config, text: str) -> Iterator[tuple[Event, "Future[Ended]"]]:
    """A run of `config` in another thread that saves its results once the event is set."""
    reached, go_on = Event(), Event()

    def save(*_: object) -> None:
        reached.set()
        go_on.wait(20)

    with ThreadPoolExecutor() as pool:
        other = pool.submit(run, config, text, save=save)
        assert reached.wait(20)
        yield go_on, other
        go_on.set()


def wait_until_awaited() -> None:
    while not list(ROOT.glob("*.awaited")):
        time.sleep(0.01)


def test_one_that_waits_for_the_same_run_takes_over_its_end(
    config: Config,
    text: str,
    capsys: pytest.CaptureFixture[str],
    under_way: tuple[Event, "Future[Ended]"],
) -> None:
    go_on, other = under_way
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(run, config, text, wait=True, crash=0)  # not a step is trained again
        wait_until_awaited()
        go_on.set()
        assert same(waiting.result(20), other.result(20))
    shown = capsys.readouterr()
    assert shown.err.count("this run is under way in another process") == 1
    assert shown.err.endswith("waiting for it\n")
    assert "going on from iteration 20" in shown.out
    assert not list(ROOT.glob("*"))


def test_one_that_waits_goes_on_where_the_other_was_cut_off(config: Config, text: str) -> None:
    with pytest.raises(CrashError):
        run(config, text, crash=10)
    (folder,) = (path for path in ROOT.iterdir() if path.is_dir())
    with ThreadPoolExecutor() as pool:
        with StateFiles(folder).locked():
            waiting = pool.submit(run, config, text, wait=True)
            wait_until_awaited()
        ended = waiting.result(20)
    assert same(ended, run(config, text))


def test_ctrl_c_ends_the_wait(
    config: Config, text: str, under_way: tuple[Event, "Future[Ended]"]
) -> None:
    def interrupt() -> None:
        wait_until_awaited()
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    with ThreadPoolExecutor() as pool:
        pool.submit(interrupt)
        with pytest.raises(TrainingError, match=r"^interrupted by SIGINT while it waited$"):
            run(config, text, wait=True)
    assert not list(ROOT.glob("*.awaited"))
    under_way[0].set()
    under_way[1].result(20)
    assert not list(ROOT.glob("*"))  # nobody waits, nothing is left


def test_a_run_started_afresh_leaves_its_own_states(
    config: Config,
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(CrashError):
        run(config, text, crash=30)
    monkeypatch.setenv("NANOGPT2_RESUME", "0")
    with pytest.raises(CrashError):
        run(config, text, crash=10)
    monkeypatch.delenv("NANOGPT2_RESUME")
    run(config, text)
    assert "going on from iteration 4;" in capsys.readouterr().out
