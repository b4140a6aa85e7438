"""The git repository of a project, and the copies of it in which DVC runs experiments."""

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nanogpt2.base.system.errors import DataError

EXPERIMENTS = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(.+)")  # a commit, a name on it


@dataclass(frozen=True)
class Revision:
    """A commit that has results: one that git names, or an experiment of DVC on the commit `base`.

    `time` is in seconds since 1970.
    """

    name: str
    commit: str
    time: int
    subject: str
    base: str | None = None


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


def list_experiments(base: str = "") -> list[Revision]:
    """Return DVC's experiments on the commit `base`, or on all, the oldest first."""
    lines = _ask_git(
        Path(),
        *("for-each-ref", "--sort=committerdate", f"refs/exps/{base[:2]}/{base[2:]}".rstrip("/")),
        "--format=%(objectname) %(committerdate:unix) %(refname)",
    )
    found = []
    for line in (lines or "").splitlines():
        commit, time, ref = line.split(" ", 2)
        if match := EXPERIMENTS.fullmatch(ref):
            found.append(Revision(match[3], commit, int(time or 0), "", match[1] + match[2]))
    return found


def find_revisions(name: str) -> list[Revision]:
    """Return the commit that `name` names, or those of a range such as main~5..main.

    DataError where git knows none.
    """
    walk = ("--reverse",) if ".." in name else ("--no-walk",)
    lines = None
    if name and not name.startswith("-"):
        form = "--format=%H%x00%ct%x00%s"
        lines = _ask_git(Path(), "log", *walk, form, "--end-of-options", name, "--")
    if lines is None:
        raise DataError(f"{name}: git knows no such branch, tag or commit; git log shows them")
    rows = [line.split("\0") for line in lines.splitlines()]
    short = len(rows) != 1
    return [
        Revision(commit[:7] if short else name, commit, int(time), subject)
        for commit, time, subject in rows
    ]


def read_committed(commits: Sequence[str], paths: Iterable[str]) -> dict[tuple[str, str], bytes]:
    """Return the contents of `paths`, relative to the current folder, by commit and path.

    What a commit does not have is left out.
    """
    prefix = _ask_git(Path(), "rev-parse", "--show-prefix")
    wanted = [(commit, path) for path in paths for commit in commits]
    if prefix is None or not wanted:
        return {}
    names = "".join(f"{commit}:{prefix}{path}\n" for commit, path in wanted)
    done = subprocess.run(
        ["git", "cat-file", "--batch"],
        input=names.encode("utf-8"),
        capture_output=True,
        check=False,
    )
    found, at = {}, 0
    for each in wanted:
        end = done.stdout.find(b"\n", at)
        if end < 0:
            break
        head, at = done.stdout[at:end].split(b" "), end + 1
        if len(head) == 3 and head[1] == b"blob":
            size = int(head[2])
            found[each] = done.stdout[at : at + size]
            at += size + 1
    return found


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
