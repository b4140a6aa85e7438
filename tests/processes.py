"""DVC and its training as processes in a workspace, to be watched and killed."""

import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from workspace import Workspace


def start(workspace: Workspace, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=workspace.root,
        env=workspace.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def training_process(workspace: Workspace) -> int | None:
    """Return the number of the process that trains in `workspace`, at any depth, or None.

    The one that DVC started waits for it.
    """
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            named = (entry / "comm").read_bytes() == b"stages.train\n"  # in the warm Python
            command = b"" if named else (entry / "cmdline").read_bytes()
            folder = (entry / "cwd").resolve()
            trains = named or b"stages.train" in command.split(b"\0")
            if trains and folder.is_relative_to(workspace.root.resolve()):
                status = (entry / "stat").read_text()
                parents[int(entry.name)] = int(status.rpartition(")")[2].split()[1])
        except OSError:
            continue
    return next((number for number, parent in parents.items() if parent in parents), None)


def wait_for(
    found: Callable[[], object], process: subprocess.Popen[str], *, every: float = 0.02
) -> bool:
    """Return True once `found` answers, False where the process ends before."""
    while not found():
        if process.poll() is not None:
            return False
        time.sleep(every)
    return True


def going_on(processes: Sequence[psutil.Process], *, within: float) -> list[psutil.Process]:
    """Return which of `processes` have not ended after so many seconds.

    One that has ended may still be listed: whoever adopted it takes its time.
    """
    left, until = list(processes), time.monotonic() + within
    while (left := list(filter(runs, left))) and time.monotonic() < until:
        time.sleep(0.01)
    return left


def runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def states(workspace: Workspace) -> list[Path]:
    return list((workspace.root / ".resume").glob("*/*-*.pt"))
