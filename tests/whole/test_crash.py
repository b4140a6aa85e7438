"""`dvc repro` killed with -9 again and again ends with the bytes of an unbroken run."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from processes import start, states, training_process, wait_for
from workspace import SMALL_RUN, Workspace

PARAMS = SMALL_RUN | {
    "dropout": 0.1,
    "max_iters": 60,
    "eval_interval": 20,
    "eval_iters": 30,
    "checkpoint_interval": 2,
    "gradient_accumulation_steps": 8,
}


def kill_at(workspace: Workspace, moment: str) -> bool:
    """Run `dvc repro` and kill its training at `moment`; return whether it came to that."""
    resume = workspace.root / ".resume"
    before = {path.name for path in states(workspace)}
    process = start(workspace, "dvc", "repro")
    arrived = wait_for(lambda: {p.name for p in states(workspace)} - before, process)
    if arrived and moment == "while it writes a state":
        arrived = wait_for(lambda: list(resume.glob("*/.partial.*")), process, every=0.002)
    elif arrived:
        time.sleep(random.uniform(0, 0.6))
    victim = training_process(workspace)
    if not arrived or victim is None:
        process.communicate()
        return False
    os.kill(victim, signal.SIGKILL)
    shown = process.communicate()[0]
    assert process.returncode != 0
    assert "train was killed by SIGKILL: most likely memory ran out" in shown
    assert "exited with 137" in shown
    return True


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    workspace = Workspace(tmp_path_factory.mktemp("unbroken") / "project", PARAMS)
    workspace.dvc("repro")
    return workspace.outputs()


def test_killed_at_random_moments_it_ends_with_the_same_bytes(
    unbroken: dict[str, str], tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "project", PARAMS)
    random.seed(3)
    moments = ["while it writes a state", "at random", "at random", "while it writes a state"]
    killed = [kill_at(workspace, moment) for moment in [*moments, "at random"]]
    assert killed.count(True) == 5
    assert "going on from iteration" in workspace.dvc("repro")
    assert workspace.outputs() == unbroken
    assert not states(workspace)


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])  # dash stays between, bash does not
def test_when_dvc_is_killed_its_training_saves_and_ends(
    unbroken: dict[str, str], tmp_path: Path, shell: str
) -> None:
    workspace = Workspace(tmp_path / "project", PARAMS)
    workspace.dvc("repro", "corpus", "prepare")
    warm_path, workspace.env["PATH"] = workspace.env["PATH"], workspace.cold_path()
    workspace.env["SHELL"] = shell
    process = start(workspace, "dvc", "repro")
    assert wait_for(lambda: states(workspace), process)
    process.kill()
    ended = time.monotonic() + 5
    while training_process(workspace):
        assert time.monotonic() < ended
        time.sleep(0.01)
    process.communicate()
    workspace.env["PATH"] = warm_path
    assert "going on from iteration" in workspace.dvc("repro")
    assert workspace.outputs() == unbroken


def test_a_crashed_experiment_goes_on_only_with_its_own_parameters(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "project", PARAMS | {"max_iters": 20, "eval_iters": 10})
    experiment = ["dvc", "exp", "run", "--temp", "-S", "learning_rate=5e-4"]
    process = start(workspace, *experiment)
    assert wait_for(lambda: states(workspace), process)  # in the main workspace
    crashed = {path.parent for path in states(workspace)}
    victim = training_process(workspace)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    process.communicate()
    other = workspace.dvc("exp", "run", "--temp", "-S", "learning_rate=4e-4")
    assert "going on" not in other
    assert {path.parent for path in states(workspace)} == crashed
    assert "going on from iteration" in workspace.dvc(*experiment[1:])
