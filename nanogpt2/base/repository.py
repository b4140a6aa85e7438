"""The git repository of a project, and the copies of it in which DVC runs experiments."""

import os
import re
import subprocess
from pathlib import Path

from nanogpt2.base.errors import DataError


def find_project() -> Path | None:
    """Return the project of which the current folder is DVC's copy for an experiment, if it is."""
    root = os.environ.get("DVC_ROOT")
    if not root or not Path(root).is_dir() or Path(root).samefile("."):
        return None
    return Path(root)


def check_repository(project: Path) -> None:
    """Raise DataError where no experiment that runs in a copy of `project` can be kept.

    DVC itself would find so only once everything was trained, or in words that help nobody.
    """
    project = project.absolute()
    if not any((folder / ".git").exists() for folder in (project, *project.parents)):
        raise DataError(
            f"{project}: no git repository, and DVC keeps experiments in one:"
            " git init && git add --all && git commit --message Start"
        )
    shallow = _ask_git(project, "rev-parse", "--is-shallow-repository")
    if not shallow:
        return  # no git, or it does not trust the folder's owner; DVC manages
    if shallow == "true":
        raise DataError(
            "this clone is shallow, and DVC keeps no experiment in one: git fetch --unshallow"
        )
    if not _ask_git(project, "rev-parse", "--verify", "HEAD"):
        raise DataError(
            "no commit yet, and DVC keeps experiments beside one:"
            " git add --all && git commit --message Start"
        )


def committed_text(path: str | Path, commit: str = "HEAD") -> str | None:
    """Return the text of `path` in a commit, None where git has none."""
    place = Path(os.path.relpath(path)).as_posix()
    return _ask_git(Path(), "show", f"{commit}:./{place}") or None


def find_commit(name: str) -> str:
    """Return the hash of the commit `name`, fetched where this clone lacks it.

    It may be a branch of a remote, such as origin/main, or a whole hash. A shallow clone stays
    shallow. Raises DataError where there is no such commit.
    """
    if commit := _ask_git(Path(), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"):
        return commit
    remotes = (_ask_git(Path(), "remote") or "").split()
    remote, _, branch = name.partition("/")
    if branch and remote in remotes:
        wanted = [remote, f"+refs/heads/{branch}:refs/remotes/{remote}/{branch}"]
    elif remotes and re.fullmatch(r"[0-9a-f]{40,64}", name):
        wanted = ["origin" if "origin" in remotes else remotes[0], name]
    else:
        advice = ", and this clone is shallow: git fetch --unshallow" if is_shallow() else ""
        raise DataError(f"{name}: git knows no such commit{advice}")
    words = ["fetch", *(["--depth=1"] if is_shallow() else []), "--no-tags", *wanted]
    if _ask_git(Path(), *words) is None:
        raise DataError(f"{name}: not in this clone, and this failed: git {' '.join(words)}")
    return _ask_git(Path(), "rev-parse", "--verify", f"{name}^{{commit}}") or name


def is_shallow() -> bool:
    """Return whether this clone lacks the history of its commits."""
    return _ask_git(Path(), "rev-parse", "--is-shallow-repository") == "true"


def has_ancestor(commit: str) -> bool:
    """Return whether the last commit stands on `commit`, as far as a whole clone can tell."""
    return _ask_git(Path(), "merge-base", "--is-ancestor", commit, "HEAD") is not None


def changed_files(path: str | Path) -> list[str]:
    """Return the files at or under `path` that differ from the last commit, as far as git tells."""
    found = _ask_git(Path(), "diff", "--name-only", "--relative", "HEAD", "--", str(path))
    return (found or "").splitlines()


def current_commit() -> str | None:
    """Return the hash of the last commit, None where git tells none."""
    return _ask_git(Path(), "rev-parse", "--verify", "HEAD") or None


def has_experiments() -> bool:
    """Return whether DVC has kept an experiment in this repository."""
    return bool(_ask_git(Path(), "for-each-ref", "--count=1", "refs/exps"))


def tracked_files() -> list[str]:
    """Return the files of the current folder that git has; DataError where it tells none."""
    found = _ask_git(Path(), "ls-files", "-z")
    if not found:
        raise DataError(f"{Path.cwd()}: git knows no file here; this needs a clone of the project")
    return [name for name in found.split("\0") if name]


def _ask_git(folder: Path, *words: str) -> str | None:
    """Return what git prints in `folder`, None where there is no git or it fails."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, encoding="utf-8", errors="replace"
        )
    except FileNotFoundError:
        return None
    return None if done.returncode else done.stdout.strip()
