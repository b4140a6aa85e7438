"""Setting up: in a folder that has moved, and in a Python that lacks what the project needs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from imports import ROOT


def made(folder: Path, target: str = "setup") -> str:
    """Return the commands that `make` would give in `folder`."""
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.fixture(params=["project", "José's own project"])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A project that was set up in its folder."""
    folder: Path = tmp_path / request.param
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "setup.py", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").mkdir()
    (folder / ".venv/ready").write_text(f"{folder}\n", encoding="utf-8")
    return folder


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_a_folder_that_moved_is_set_up_anew(project: Path) -> None:
    assert "venv" not in made(project)
    assert made(project, "repro") == "dvc repro\n"
    moved = project.rename(project.with_name("moved here"))
    for target in ("setup", "repro", "test"):
        shown = made(moved, target)
        assert shown.index("rm -rf .venv") < shown.index("-m venv .venv")
    copy = Path(shutil.copytree(moved, moved.with_name("copy")))
    assert "rm -rf .venv" in made(copy)
    (copy / ".venv/ready").write_text("", encoding="utf-8")  # of an older version
    assert "venv" not in made(copy)
    (copy / ".venv/ready").unlink()  # never set up, or not to the end
    assert "rm -rf .venv" not in made(copy)
    assert "-m venv .venv" in made(copy)


def test_a_python_without_the_packages_says_what_to_activate(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "stages.validate"],  # without its site-packages
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"{sys.executable} has no click and no torch; activate the project's environment:"
        " source .venv/bin/activate (make setup makes it)\n"
    )
