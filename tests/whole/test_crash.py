"""`dvc repro` killed with -9 again and again ends with the bytes of an unbroken run."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import warm
from every import in_every, some
from processes import start, states, training_process, wait_for
from workspace import SMALL_RUN, Workspace

PARAMS = SMALL_RUN | {
    "dropout": 0.1,
    "max_iters": 40,
    "eval_interval": 20,
    "eval_iters": 20,
    "checkpoint_interval": 2,
    "gradient_accumulation_steps": 3,
}


def kill_at(workspace: Workspace, moment: str) -> bool:
    """Run `dvc repro` and kill its training at `moment`; return whether it came to that."""
    resume = workspace.root / ".resume"
    before = {path.name for path in states(workspace)}
    process = start(workspace, "dvc", "repro", "train")
    arrived = wait_for(lambda: {p.name for p in states(workspace)} - before, process)
    if arrived and moment == "while it writes a state":
        arrived = wait_for(lambda: list(resume.glob("*/.partial.*")), process, every=0.002)
    elif arrived:
        time.sleep(random.uniform(0, 0.3))
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
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone in which everything before training has run."""
    workspace = Workspace.trained(tmp_path_factory.mktemp("prepared") / "project")
    workspace.put(PARAMS)
    workspace.dvc("repro", "prepare")
    return workspace


@pytest.fixture(scope="module")
def unbroken(prepared: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone in which training has run from its start to its end."""
    workspace = prepared.copy(tmp_path_factory.mktemp("unbroken") / "project")
    workspace.dvc("repro", "train")
    return workspace


def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    prepared: Workspace, unbroken: Workspace, tmp_path: Path
) -> None:
    """benchmarks/resume_study.py kills it more often."""
    workspace = prepared.copy(tmp_path / "project")
    random.seed(3)
    assert kill_at(workspace, "while it writes a state")
    assert kill_at(workspace, "at random")
    assert "going on from iteration" in workspace.dvc("repro", "train")
    assert workspace.outputs() == unbroken.outputs()
    assert not states(workspace)


def test_when_dvc_is_killed_its_training_saves_and_ends(
    prepared: Workspace, unbroken: Workspace, tmp_path: Path
) -> None:
    workspace = prepared.copy(tmp_path / "project")
    dvc = str(Path(warm.executable()).with_name("dvc"))
    cold = Workspace.at(workspace.root, workspace.env | {"PATH": workspace.cold_path()})
    for shell in some(["/bin/sh", "/bin/bash"], "/bin/sh"):  # dash stays between, bash does not
        cold.env["SHELL"] = shell
        before = states(workspace)
        process = start(cold, dvc, "repro", "train")
        assert wait_for(lambda: set(states(workspace)) - set(before), process)  # noqa: B023
        process.kill()
        ended = time.monotonic() + 5
        while training_process(workspace):
            assert time.monotonic() < ended
            time.sleep(0.01)
        process.communicate()
    assert "going on from iteration" in workspace.dvc("repro", "train")
    assert workspace.outputs() == unbroken.outputs()


@in_every("tests/train/test_resume.py changes the configuration of a run that was cut off")
def test_a_crashed_experiment_goes_on_only_with_its_own_parameters(unbroken: Workspace) -> None:
    unbroken.commit("trained")
    values = ["-S", "max_iters=40", "-S", "learning_rate=5e-4"]
    experiment = ["exp", "run", "--temp", *values, "train"]
    process = start(unbroken, "dvc", *experiment)
    assert wait_for(lambda: states(unbroken), process)  # in the main workspace
    crashed = {path.parent for path in states(unbroken)}
    victim = training_process(unbroken)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    process.communicate()
    unbroken.put({"max_iters": 40, "learning_rate": 4e-4})
    assert "going on" not in unbroken.dvc("repro", "train")
    unbroken.git("restore", ".")
    unbroken.dvc("checkout", "--quiet")
    assert {path.parent for path in states(unbroken)} == crashed
    assert "going on from iteration" in unbroken.dvc(*experiment)
