"""A repository in which DVC cannot keep experiments is named, with the command that mends it."""

import os
import subprocess
from pathlib import Path

import pytest

from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.repository import check_repository, find_project


def git(folder: Path, *words: str) -> None:
    named = {
        "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org",
        "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org",
    }  # fmt: skip
    subprocess.run(["git", *words], cwd=folder, env=os.environ | named, check=True)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository of two commits."""
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for message in ("first", "second"):
        git(folder, "commit", "--quiet", "--allow-empty", "--message", message)
    return folder


def test_a_whole_repository_will_do_with_a_branch_or_without(project: Path) -> None:
    check_repository(project)
    git(project, "checkout", "--quiet", "--detach")
    check_repository(project)


def test_a_worktree_will_do(project: Path, tmp_path: Path) -> None:
    git(project, "worktree", "add", "--quiet", str(tmp_path / "other"))
    check_repository(tmp_path / "other")


def test_a_shallow_clone_is_refused_until_the_command_was_given(
    project: Path, tmp_path: Path
) -> None:
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--depth", "1", project.as_uri(), str(clone))
    with pytest.raises(DataError, match=r"shallow.*: git fetch --unshallow$"):
        check_repository(clone)
    git(clone, "fetch", "--quiet", "--unshallow")
    check_repository(clone)


def test_a_folder_that_git_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no git repository.*: git init && git add"):
        check_repository(tmp_path)


def test_a_repository_without_a_commit_is_refused(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    with pytest.raises(DataError, match=r"no commit yet.*: git add --all && git commit"):
        check_repository(tmp_path)


def test_without_git_nothing_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    check_repository(project)


def test_what_git_does_not_trust_is_left_to_dvc(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a folder of another user's in a container."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    check_repository(project)


def test_a_copy_knows_its_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / ".dvc/tmp/exps/tmp1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert find_project() == tmp_path
    monkeypatch.chdir(tmp_path)
    assert find_project() is None
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "gone"))
    assert find_project() is None
    monkeypatch.delenv("DVC_ROOT")
    assert find_project() is None
