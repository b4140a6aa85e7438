"""DVC and git, run as the commands that a person would type: the one place that calls them."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from nanogpt2.base.system.errors import DataError, TrainingError

METRICS = "metrics/eval.json"
FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "DVC_ROOT", "DVC_STAGE", "DVC_EXP_NAME")


def environment(python: str = "", **more: str) -> dict[str, str]:
    """Return the environment of what is started, in which `python` is this one, or the one given.

    What belongs to another repository or run is left out; texts are UTF-8 whatever the locale is.
    """
    mine = {key: value for key, value in os.environ.items() if key not in FOREIGN}
    path = (
        f"{Path(python or sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    )
    fixed = {"PATH": path, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}
    return mine | fixed | more


def dvc(*arguments: str, folder: Path | None = None) -> str:
    """Return what the command prints, run in the current folder or `folder`.

    TrainingError where it fails.
    """
    return _run([sys.executable, "-m", "dvc", *arguments], "dvc", folder)


def git(folder: Path, *arguments: str) -> str:
    """Return what the command prints, without the last newline; TrainingError where it fails."""
    return _run(["git", *arguments], "git", folder).removesuffix("\n")


def _run(command: Sequence[str], name: str, folder: Path | None) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError as error:
        raise DataError(f"no command {name} here; install it") from error
    if done.returncode:
        arguments = " ".join(command[command.index("dvc") + 1 if name == "dvc" else 1 :])
        said = (done.stderr or done.stdout).strip().splitlines()
        raise TrainingError("\n".join([*said[-15:], f"{name} {arguments}: failed"]))
    return done.stdout


def start_experiment(
    name: str,
    setting: Sequence[str],
    *,
    folder: Path,
    log: Path,
    env: Mapping[str, str],
    python: str = "",
) -> subprocess.Popen[bytes]:
    """Start the pipeline up to evaluate as an experiment of the project in `folder`.

    All that it prints is appended to `log`. It is no part of this process's group, so that Ctrl-C
    and the end of this process leave it be. `python` may be one that starts more quickly.
    """
    options = [word for each in setting for word in ("-S", each)]
    run = ["-m", "dvc", "exp", "run", "--name", name, *options, "evaluate"]
    with log.open("ab") as output:
        return subprocess.Popen(
            [python or sys.executable, *run],
            cwd=folder,
            env=environment(python, **env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
