"""What changes while a stage runs is not recorded as what it ran with."""

import subprocess
import time
from pathlib import Path

import pytest
import yaml
from workspace import SMALL_RUN, Workspace

LONG = SMALL_RUN | {"max_iters": 40, "eval_interval": 40, "eval_iters": 50}
OLD, NEW = "learning_rate: ", "learning_rate: 1e-3 # "


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone in which a shorter run has ended."""
    workspace = Workspace.trained(tmp_path_factory.mktemp("clone") / "project")
    workspace.put(LONG)
    return workspace


def edit(path: Path, old: str, new: str) -> str:
    """Replace `old` in a file; return its text before."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return text


def train_and_edit(workspace: Workspace, *edits: tuple[str, str, str]) -> tuple[int, str]:
    """Edit files once training is under way; return the exit status and what was printed."""
    process = subprocess.Popen(
        ["dvc", "repro", "train"], cwd=workspace.root, env=workspace.env,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while not list((workspace.root / ".resume").glob("*/*.pt")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    for name, old, new in edits:
        edit(workspace.root / name, old, new)
    shown = process.communicate()[0]
    return process.returncode, shown


def recorded(workspace: Workspace) -> object:
    """Return what DVC has of the last training."""
    lock = yaml.safe_load((workspace.root / "dvc.lock").read_text(encoding="utf-8"))
    return lock["stages"]["train"]


def test_a_parameter_or_code_that_changes_meanwhile_is_refused_and_the_training_kept(
    workspace: Workspace,
) -> None:
    code = ("nanogpt2/train/losses.py", '"""', '"""Changed. ')
    texts = {name: (workspace.root / name).read_text() for name in ("params.yaml", code[0])}
    before = recorded(workspace)
    status, shown = train_and_edit(workspace, ("params.yaml", OLD, NEW), code)
    assert status != 0
    assert (
        "nanogpt2/train/losses.py, params.yaml: learning_rate changed while train ran, and DVC"
        " would record what is there now; put it back and give the same command"
    ) in shown
    assert recorded(workspace) == before
    for name, text in texts.items():
        (workspace.root / name).write_text(text)
    again = workspace.dvc("repro", "train")
    assert "going on from iteration 40" in again
    assert (workspace.root / "checkpoints/final_model.pt").exists()
    assert recorded(workspace) != before


def test_what_training_does_not_read_may_change(workspace: Workspace) -> None:
    edit(workspace.root / "params.yaml", "seed: 1337", "seed: 3")
    edits = [
        ("params.yaml", "\n  temperature: 0.8", "\n  temperature: 0.9"),
        ("nanogpt2/report/advice.py", '"""', '"""Changed. '),
    ]
    status, shown = train_and_edit(workspace, *edits)
    assert status == 0, shown
