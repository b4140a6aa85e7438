"""The DVC that runs a stage: the stage ends with it."""

import contextlib
import os
import signal
import time

import psutil


def end_with_dvc() -> None:
    """Send SIGTERM to this process once the DVC that runs it is gone.

    A killed DVC leaves its stage running, and so does the shell that may stand between them.
    """
    try:
        dvc = next(p for p in psutil.Process().parents() if "DVC_STAGE" not in p.environ())
    except (StopIteration, psutil.Error):
        return  # started by another program, or by another user
    with contextlib.suppress(psutil.NoSuchProcess):
        while dvc.is_running() and dvc.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
