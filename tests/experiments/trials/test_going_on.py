"""`python -m nanogpt2 sweep` with real DVC: killed, it goes on; a person's files stay as they are.

The project lies in a folder with a letter beyond ASCII, where `dvc exp run --temp` fails, and has
changes that are in no commit.
"""

import json
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import warm
from every import some
from workspace import SMALL_RUN, Workspace

PLACE = ".dvc/tmp/sweeps"
LONG = {**SMALL_RUN, "max_iters": 60, "eval_interval": 10, "checkpoint_interval": 10}
COMMAND = (warm.executable(), "-m", "nanogpt2", "sweep", "--jobs", "2")


def state_of(workspace: Workspace) -> list[str]:
    notes = sorted((workspace.root / "logs/sweeps").glob("trial-*.json"))
    return [json.loads(note.read_text(encoding="utf-8"))["state"] for note in notes]


def kill_all_in(folder: Path) -> None:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                process.kill()


def test_a_sweep_that_is_killed_goes_on_and_trains_nothing_twice(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "José" / "project", LONG)
    workspace.git("config", "user.name", "José")
    readme = workspace.root / "README.md"
    readme.write_text("edited\n", encoding="utf-8")
    settings = ("-S", "learning_rate=1e-3,x", "-S", "evaluate.stride=4")
    refused = workspace.run(*COMMAND, *settings, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith('learning_rate: found "x"; allowed: a number')
    assert not (workspace.root / "logs").exists()

    settings = ("-S", "learning_rate=2e-3", "-S", "init_from=scratch,none.pt")
    killed = subprocess.Popen(
        [*COMMAND, *settings],
        cwd=workspace.root,
        env=workspace.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    logs, until = workspace.root / "logs/sweeps", time.monotonic() + 60
    while time.monotonic() < until and not any(
        "iter 20" in log.read_text(encoding="utf-8") for log in logs.glob("*.log")
    ):
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    kill_all_in(workspace.root / PLACE)  # as a power cut would
    assert workspace.git("status", "--porcelain") == " M README.md\n"

    done = workspace.run(*COMMAND, *settings, check=False)
    assert done.returncode == 1  # one trial failed, and the other went on
    assert sorted(state_of(workspace)) == ["failed", "finished"]
    assert done.stderr.count("init_from: none.pt: no such file or folder") == 1
    assert done.stderr.splitlines()[-1].startswith("1 of 2 trials failed, trial-")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["val", "loss", "experiment", "init_from"]
    assert [row[0] for row in rows[1:3]] == ["*", "failed"]
    name = rows[1][2]
    assert workspace.dvc("exp", "list", "--name-only").split() == [name]
    text = (logs / f"{name}.log").read_text(encoding="utf-8")
    assert text.count("best val loss") == 1
    assert text.count("iter 0:") == 1  # the second attempt went on from a state

    assert workspace.git("status", "--porcelain") == " M README.md\n"
    assert [path.name for path in (workspace.root / PLACE).iterdir()] == ["lock"]
    reference = workspace.git("for-each-ref", "--format=%(refname)", "refs/exps").strip()
    assert workspace.git("show", f"{reference}:README.md") == "edited\n"  # it goes along
    assert "learning_rate: 0.002" in workspace.git("show", f"{reference}:params.yaml")
    workspace.dvc("exp", "branch", name, "winner")


@pytest.mark.parametrize("depth", some([[], ["--depth", "1"]], []))
def test_what_would_be_missed_in_a_copy_is_told_first(tmp_path: Path, depth: list[str]) -> None:
    workspace = Workspace(tmp_path / "project")
    workspace.git("commit", "--quiet", "--allow-empty", "--message", "second")
    source = workspace.root.as_uri()
    workspace.git("clone", "--quiet", *depth, source, str(tmp_path / "clone"))
    clone = Workspace.at(tmp_path / "clone", workspace.env)
    said = clone.run(*COMMAND, "-S", "dropout=0,0.1", check=False)
    expected = "data/raw is not here: dvc checkout data/raw, or dvc pull data/raw\n"
    if depth:
        expected = (
            "this clone is shallow, and DVC keeps no experiment in one: git fetch --unshallow\n"
        )
    assert (said.stdout, said.stderr, said.returncode) == ("", expected, 1)
    if depth:
        return
    (workspace.root / "data/raw/more.txt").write_text("More.", encoding="utf-8")
    (workspace.root / "data/new.txt").write_text("New.", encoding="utf-8")
    for corpus, expected in (
        (
            "data/raw",
            "data/raw is not as data/raw.dvc records it: dvc add data/raw, or dvc checkout",
        ),
        (
            "data/new.txt",
            "data/new.txt: neither git nor DVC knows of it, so no copy has it: dvc add",
        ),
    ):
        said = workspace.run(*COMMAND, "-S", f"corpus={corpus}", check=False)
        assert said.stderr.startswith(expected)
    assert not list(tmp_path.glob(f"*/{PLACE}/[0-9]*"))
