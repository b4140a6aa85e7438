"""The DVC that runs a stage: the stage ends with it."""

import psutil

from nanogpt2.base.signals import end_after


def end_with_dvc() -> None:
    """Send SIGTERM to this process once the DVC that runs it is gone.

    A killed DVC leaves its stage running, and so does the shell that may stand between them.
    """
    try:
        dvc = next(p for p in psutil.Process().parents() if "DVC_STAGE" not in p.environ())
    except (StopIteration, psutil.Error):
        return  # started by another program, or by another user
    end_after(lambda: is_alive(dvc))


def is_alive(process: psutil.Process) -> bool:
    """Return whether `process` runs, and does not only wait to be taken note of."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
