"""Following teachers through the pipeline: what DVC sees of them, and takes along."""

from pathlib import Path

import pytest
import warm
from every import in_every
from workspace import Workspace

from nanogpt2.model.checkpoint import hash_weights, load_checkpoint

TEACHER = "data/teachers/first.pt"
STUDENT = ("exp", "run", "--temp", "--name", "student", "-S", "seed=2")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace that has trained, with its best model in the folder of teachers."""
    workspace = Workspace.trained(tmp_path_factory.mktemp("distil") / "project")
    model = workspace.root / "checkpoints/best_model.pt"
    (workspace.root / TEACHER).write_bytes(model.read_bytes())
    return workspace


def test_what_dvc_would_not_see_is_refused_before_anything_is_removed(
    workspace: Workspace,
) -> None:
    """That of which git does not know: test_experiments.py."""
    kept, parameters = workspace.outputs(), workspace.root / "params.yaml"
    usual = parameters.read_text(encoding="utf-8")
    for path, line in {
        "checkpoints/best_model.pt": "allowed: a file in data/teachers in the pipeline, which sees",
        "data/teachers/none.pt": "teachers: data/teachers/none.pt: no such file",
    }.items():
        parameters.write_text(
            usual.replace("teachers: []", f"teachers: [{path}]"), encoding="utf-8"
        )
        assert line in workspace.run("dvc", "repro", check=False).stderr
    workspace.git("restore", "params.yaml")
    assert workspace.outputs() == kept


@in_every("tests/experiments/test_seeds.py has a student that comes to another clone")
def test_a_student_is_an_experiment_that_takes_its_teacher_along_to_another_clone(
    workspace: Workspace, tmp_path: Path
) -> None:
    """With the commands of docs/distil.md; that it trains alike there: test_seeds.py."""
    workspace.dvc("add", TEACHER)
    workspace.git("add", "data/teachers")
    done = workspace.dvc(*STUDENT, "-S", f"teachers=[{TEACHER}]", "train")
    assert f"following {TEACHER}: 0.7 of the loss" in done

    workspace.git("restore", "--staged", "data/teachers")  # in the experiment alone
    for name in (TEACHER, f"{TEACHER}.dvc", "data/teachers/.gitignore"):
        (workspace.root / name).unlink()
    assert "up to date" in workspace.dvc("status")
    workspace.dvc("exp", "apply", "student")
    assert workspace.stages_run("repro", "train") == []
    workspace.commit("student")
    student = load_checkpoint(workspace.root / "checkpoints/best_model.pt", device="cpu")
    teacher = load_checkpoint(workspace.root / TEACHER, device="cpu").model
    assert student.origin["teachers"] == [hash_weights(teacher.state_dict())]

    workspace.dvc("remote", "add", "--default", "shared", str(tmp_path / "remote"))
    workspace.dvc("push")
    workspace.git("clone", "--quiet", str(workspace.root), str(tmp_path / "clone"))
    clone = Workspace.at(tmp_path / "clone", workspace.env)
    clone.dvc("remote", "add", "--default", "shared", str(tmp_path / "remote"))
    clone.run("dvc", "pull", "--allow-missing")
    assert (clone.root / TEACHER).read_bytes() == (workspace.root / TEACHER).read_bytes()
    assert clone.stages_run("repro", "train") == []
    assert clone.git("status", "--short").split() == ["M", ".dvc/config"]


@in_every("it follows from the one before")
def test_another_content_of_a_teacher_trains_again(workspace: Workspace) -> None:
    assert workspace.stages_run("repro", "train") == []
    last = workspace.root / "checkpoints/final_model.pt"
    (workspace.root / TEACHER).write_bytes(last.read_bytes())
    verified = workspace.run(warm.executable(), "-m", "nanogpt2", "verify", check=False)
    assert f"followed another teacher than {TEACHER}" in verified.stdout
    assert workspace.stages_run("repro", "train") == ["train"]
