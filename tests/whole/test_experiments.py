"""Experiments that DVC runs in copies of the project: what keeps them from it is said first."""

from pathlib import Path

import pytest
import warm
from workspace import TEXT, Workspace

TEACHER = "data/teachers/first.pt"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone with two commits and the experiment `kept`: for DVC, a commit that a ref names."""
    workspace = Workspace(tmp_path_factory.mktemp("clone") / "project")
    workspace.git("commit", "--quiet", "--allow-empty", "--message", "second")
    base = workspace.git("rev-parse", "HEAD").strip()
    workspace.put({"max_iters": 4})
    workspace.commit("kept")
    workspace.git("update-ref", f"refs/exps/{base[:2]}/{base[2:]}/kept", "HEAD")
    workspace.git("reset", "--quiet", "--hard", base)
    return workspace


def test_a_shallow_clone_refuses_before_anything_is_trained(
    workspace: Workspace, tmp_path: Path
) -> None:
    source = workspace.root.as_uri()
    workspace.git("clone", "--quiet", "--depth", "1", source, str(tmp_path / "clone"))
    shallow = Workspace.at(tmp_path / "clone", workspace.env)
    line = "this clone is shallow, and DVC keeps no experiment in one: git fetch --unshallow\n"
    seeds = shallow.run(warm.executable(), "-m", "nanogpt2", "seeds", check=False)
    assert (seeds.stdout, seeds.stderr, seeds.returncode) == ("", line, 1)
    apart = shallow.run("dvc", "exp", "run", "--temp", "-S", "seed=2", check=False)
    assert line in apart.stderr
    assert "Running stage 'prepare'" not in apart.stdout
    assert apart.returncode != 0


def test_edits_that_an_applied_experiment_discarded_come_back(workspace: Workspace) -> None:
    """With the command of docs/training.md."""
    readme = workspace.root / "README.md"
    edited = readme.read_text(encoding="utf-8") + "edited\n"
    readme.write_text(edited, encoding="utf-8")
    workspace.run("dvc", "exp", "apply", "kept", check=False)  # less what was not run
    assert readme.read_text(encoding="utf-8") != edited
    workspace.git("restore", "--source", "refs/exps/apply/stash", "README.md")
    assert readme.read_text(encoding="utf-8") == edited
    workspace.git("restore", ".")


def test_what_only_the_project_has_is_named_with_what_brings_it_along(
    workspace: Workspace,
) -> None:
    (workspace.root / "data/new").mkdir()
    (workspace.root / "data/new/sonnet.txt").write_text(TEXT, encoding="utf-8")
    (workspace.root / "data/hint.txt").write_text("Shall I", encoding="utf-8")
    (workspace.root / TEACHER).write_bytes(b"any")
    changes = ["-S", "corpus=data/new", "-S", "sample.prompt_file=data/hint.txt"]
    changes += ["-S", f"teachers=[{TEACHER}]"]
    apart = workspace.run("dvc", "exp", "run", "--temp", *changes, check=False)
    assert (
        "corpus: data/new is not in the copy of the project in which DVC runs an experiment, since"
        " git does not know of it: dvc add data/new && git add data/new.dvc data/.gitignore\n"
        in apart.stderr
    )
    assert (
        "sample.prompt_file: data/hint.txt is not in the copy of the project in which DVC runs an"
        " experiment, since git does not know of it: git add data/hint.txt\n" in apart.stderr
    )
    assert f": dvc add {TEACHER} && git add data/teachers\n" in apart.stderr
