"""Several processes: the same losses as one, one voice, and an end when one of them ends."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import chdir, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import warm
from click.testing import CliRunner
from imports import ROOT
from processes import going_on
from several import CASES, CHOSEN, SHARDS, STEPS, case_config, losses, sharded_bits
from workspace import compile_once

from nanogpt2.base.system.errors import ConfigError, TrainingError
from nanogpt2.config.config import get_config
from nanogpt2.device import group
from nanogpt2.device.group import check_group, told_once
from nanogpt2.device.launch import launch
from nanogpt2.kernels.checks.trials import TRIALS
from nanogpt2.model.checkpoint import hash_weights, load_tensors
from stages.prepare import main as prepare

GLOO = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo",
)
pytestmark = GLOO

PARAMS = """
corpus: text.txt
block_size: 16
n_layer: 1
n_head: 2
n_embd: 16
batch_size: 8
dropout: 0.1
max_iters: 80
eval_interval: 40
eval_iters: 3
checkpoint_interval: 5
device: cpu
shards: 2
num_processes: 2
"""
TEXT = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate.\n" * 60


def environment() -> dict[str, str]:
    path = os.pathsep.join(map(str, [ROOT, ROOT / "tests", *sys.path]))
    return os.environ | {"PYTHONPATH": path, "CI": "1"}  # no sign of life after 4 seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and prepared data."""
    path = tmp_path_factory.mktemp("project")
    (path / "text.txt").write_text(TEXT, encoding="utf-8")
    (path / "my.yaml").write_text(PARAMS, encoding="utf-8")
    alone = PARAMS.replace("num_processes: 2", "num_processes: 1")
    (path / "alone.yaml").write_text(alone, encoding="utf-8")
    with chdir(path):
        assert CliRunner().invoke(prepare, ["--config", "my.yaml"]).exit_code == 0
    return path


@pytest.fixture(scope="module")
def several(folder: Path) -> subprocess.CompletedProcess[str]:
    """several.py, as it ended in two processes."""
    compile_once(5, 8)
    return run_several(folder, "2", "cpu")


def run_several(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [warm.executable(), str(ROOT / "tests/several.py"), *arguments],
        cwd=folder, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def found(several: subprocess.CompletedProcess[str], folder: Path) -> list[dict[str, Any]]:
    """What each of the two processes of several.py found."""
    paths = [folder / "0.json", folder / "1.json"]
    assert all(path.exists() for path in paths), several.stderr
    return [json.loads(path.read_bytes()) for path in paths]


# --- The same as one process, up to rounding ---


def test_an_operator_that_fails_in_one_process_is_torchs_in_all(
    found: list[dict[str, Any]],
) -> None:
    main, other = (process["agreed"] for process in found)
    assert main == other == [main[0], "Rows"]
    assert 0 < len(main[0]) < len(TRIALS)


@pytest.mark.parametrize("case", CHOSEN)
def test_two_processes_find_the_losses_of_one(case: str, found: list[dict[str, Any]]) -> None:
    main, other = (process[case] for process in found)
    assert main == other
    alone = losses(case_config(CASES[case], "cpu"))
    assert [row[0] for row in main] == pytest.approx([row[0] for row in alone], rel=1e-5)
    assert main[-1] == pytest.approx(alone[-1], rel=1e-5)  # evaluations


def test_no_whole_weight_of_a_block_waits_for_the_backward_pass_in_16_bits_either(
    found: list[dict[str, Any]],
) -> None:
    assert [process["kept"] for process in found] == [0, 0]


@pytest.mark.skipif(not hasattr(torch.Tensor, "grad_dtype"), reason="torch has it from 2.10 on")
def test_gradients_of_weights_gathered_in_16_bits_are_not_rounded(
    found: list[dict[str, Any]],
) -> None:
    gradient, expected = found[0]["gradients"]
    assert gradient == expected
    assert gradient != torch.tensor(expected).bfloat16().tolist()


# --- Shards: the same to the bit ---


@pytest.fixture(scope="module")
def of_four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of four processes found with shards."""
    folder = tmp_path_factory.mktemp("four")
    done = run_several(folder, "4", "cpu", "shards")
    assert done.returncode == 0, done.stderr
    return [json.loads((folder / f"{rank}.json").read_bytes())["shards"] for rank in range(4)]


def test_with_shards_one_two_and_four_processes_find_the_same_bits(
    found: list[dict[str, Any]], of_four: list[dict[str, Any]]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - threads if threads < 3 else 2)  # others than the processes have
    try:
        alone = sharded_bits("cpu")
    finally:
        torch.set_num_threads(threads)
    for process in [*(each["shards"] for each in found), *of_four]:
        assert process == alone


def test_shards_only_change_the_order_of_sums() -> None:
    for case in ({}, CASES["adamw, accumulated"]):
        with_shards, without = (
            losses(case_config({**case, **shards}, "cpu")) for shards in (SHARDS, {})
        )
        for row, other in zip(with_shards, without, strict=True):
            assert row == pytest.approx(other, rel=1e-5)


def test_without_shards_a_run_goes_on_in_other_processes_and_says_that_its_bits_differ(
    found: list[dict[str, Any]],
) -> None:
    moved = found[0]["moved"]
    assert moved["said"] == [
        f"going on from iteration {step} with {changes}, so not to the bit;"
        " NANOGPT2_RESUME=0 starts afresh"
        for step, changes in (
            (3, "num_processes: 2 -> 1, parallel: fsdp -> ddp"),
            (6, "num_processes: 1 -> 2, parallel: ddp -> fsdp"),
        )
    ]
    assert moved["losses"]["val_loss"] == pytest.approx(found[0]["adamw"][-1][0], rel=1e-5)


# --- One voice ---


def test_all_stop_at_a_loss_that_is_not_finite_in_one(found: list[dict[str, Any]]) -> None:
    assert found[0]["not finite"] == found[1]["not finite"]
    assert found[0]["not finite"].startswith("TrainingError: iteration 3: loss nan")


def test_only_the_main_process_saves_and_all_know_when_it_cannot(
    found: list[dict[str, Any]],
) -> None:
    assert [process["saved"] for process in found] == [[["best", "final"]], []]
    assert [process["no room"] for process in found] == ["TrainingError: no room"] * 2


def test_one_that_is_short_of_memory_takes_smaller_steps_alone(found: list[dict[str, Any]]) -> None:
    assert found[0]["memory"] == found[1]["memory"]
    alone = losses(case_config({}, "cpu"))[-1][0]
    assert found[0]["memory"][-1]["val_loss"] == pytest.approx(alone, rel=1e-5)


def test_patience_ends_all_at_the_same_step(found: list[dict[str, Any]]) -> None:
    assert found[0]["patience"] == found[1]["patience"] < STEPS


def test_a_run_under_way_elsewhere_is_refused_to_all(found: list[dict[str, Any]]) -> None:
    for process in found:
        assert process["refused"].startswith("TrainingError: this run is under way in another")


@pytest.mark.parametrize("kind", ["resumed", "resumed, fsdp"])
def test_a_resumed_run_has_the_weights_of_an_unbroken_one(
    kind: str, found: list[dict[str, Any]]
) -> None:
    assert found[0][kind] == found[1][kind]
    assert found[0][kind][0] == found[0][kind][1]


def test_an_error_of_one_process_is_one_line_and_the_end_of_all(
    several: subprocess.CompletedProcess[str],
) -> None:
    assert several.returncode == 1
    assert several.stderr == "process 1 alone has this to say\n"


# --- The stage ---


def rank_of(process: psutil.Process) -> int:
    return int(process.environ()["RANK"])


class Training:
    """`python -m stages.train` under way in a folder."""

    def __init__(self, folder: Path, config: str = "my.yaml") -> None:
        self.folder = folder
        before = self.states()
        self.process = subprocess.Popen(
            [warm.executable(), "-m", "stages.train", "--config", config],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.before = before

    def states(self) -> set[Path]:
        return set(self.folder.glob(".resume/*/*-*.pt"))

    def at_a_state(self) -> list[psutil.Process]:
        """Wait until it has saved a state; return its processes in their order."""
        while not self.states() - self.before:
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.002)
        return sorted(filter(self.is_rank, psutil.process_iter()), key=rank_of)

    def is_rank(self, process: psutil.Process) -> bool:
        """Return whether `process` is one of those that train together in the folder."""
        with suppress(psutil.Error):
            return Path(process.cwd()) == self.folder and "RANK" in process.environ()
        return False

    def end(self) -> tuple[int, str, str]:
        """Return the exit status, and what was printed on stdout and stderr."""
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


def test_whatever_ends_it_the_same_command_goes_on_to_the_same_bytes(
    folder: Path, found: list[dict[str, Any]]
) -> None:
    """With shards, also in another number of processes."""
    killed = Training(folder)
    ranks = killed.at_a_state()
    ranks[1].kill()
    asked = time.monotonic()
    status, _, err = killed.end()
    assert (status, err) == (
        1,
        "process 2 of 2 was killed by SIGKILL; the same command goes on from the last state,"
        " where one was saved\n",
    )
    assert time.monotonic() - asked < 5
    assert not any(rank.is_running() for rank in ranks)

    stopped = Training(folder)
    stopped.at_a_state()
    stopped.process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    status, out, err = stopped.end()
    assert status == 1
    assert "going on from iteration" in out
    line = r"interrupted by SIGTERM after iteration \d+; the same command goes on from there\n"
    assert re.fullmatch(line, err)
    assert time.monotonic() - asked < 5

    status, out, _ = Training(folder, "alone.yaml").end()
    assert status == 0
    lines = out.splitlines()
    assert len([line for line in lines if re.match(r"going on from iteration \d+;", line)]) == 1
    assert [line.split(":")[0] for line in lines if line.startswith("iter ")][-1:] == ["iter 80"]
    weights = load_tensors(folder / "checkpoints/final_model.pt")["model_state_dict"]
    assert hash_weights(weights) == found[0]["unbroken"]
    assert not list(folder.glob(".resume/*/*.pt"))


def test_the_process_that_holds_the_store_ends_after_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else torch adds what it thinks of a store that is gone."""
    monkeypatch.setattr(group, "_end_soon", lambda: None)
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    failed = threading.Timer(0.2, lambda: store.add("failed", 1))
    failed.start()
    with pytest.raises(TrainingError, match="stopped"), told_once(store, 0, 2):
        raise TrainingError("stopped")
    assert not failed.is_alive()
    began = time.monotonic()
    with pytest.raises(SystemExit), told_once(store, 0, 4):  # the fourth never says so
        raise TrainingError("stopped")
    assert time.monotonic() - began < 5


SLEEPER = """
import threading, time
from nanogpt2.device.launch import end_with_launcher
threading.Thread(target=end_with_launcher, daemon=True).start()
time.sleep(60)
"""


def test_the_processes_end_with_the_one_that_launched_them() -> None:
    call = f"launch(2, [sys.executable, '-c', {SLEEPER!r}])"
    script = f"import sys; from nanogpt2.device.launch import launch; {call}"
    launcher = subprocess.Popen([sys.executable, "-c", script], env=environment())
    while len(ranks := psutil.Process(launcher.pid).children()) < 2:
        time.sleep(0.01)
    launcher.kill()
    launcher.wait()
    assert not going_on(ranks, within=5)


def test_a_group_that_cannot_train_together_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_processes: found 2; allowed: 1 with device mps"):
        get_config("nano", device="mps", num_processes=2)
    config = get_config("nano", batch_size=4)  # torchrun's number is not in the configuration
    with pytest.raises(ConfigError, match=r"num_processes: found 3; allowed: .*: 2, 4$"):
        check_group(config, torch.device("cpu"), 3)


def test_launch_gives_each_process_its_part_of_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import os; from pathlib import Path;"
        "Path(os.environ['RANK']).write_text(os.environ['OMP_NUM_THREADS'])"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS")
    launch(2, [sys.executable, "-c", script])
    cores = len(os.sched_getaffinity(0))
    assert [Path(rank).read_text() for rank in "01"] == [str(max(1, cores // 2))] * 2
