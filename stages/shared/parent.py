"""The processes around a stage that DVC runs: it ends with them, and they say how it ended.

The stage runs in a child of the process that DVC started. Who is killed cannot say so; the one
that waits can.
"""

import os
import signal
import sys
import threading
from collections.abc import Set

import psutil

from nanogpt2.base.system.signals import SIGNALS, end_after

AGAIN = {"train": "; the same command goes on from the last state, where one was saved"}
SMALLER = {
    "train": "a smaller batch_size, with more gradient_accumulation_steps,",
    "evaluate": "a smaller evaluate.batch_size",
}
CRASHES = {"SIGSEGV", "SIGBUS", "SIGILL", "SIGFPE", "SIGABRT"}


def run_apart(stage: str) -> None:
    """Go on in a child process; this one waits for it, and exits as it does.

    Signals are passed on. Where one killed the child a line says so, and what to try; the status
    is then that of a shell, 128 and the signal's number. The child ends with this process, and
    with the DVC that runs it. Only Linux tells who sent a signal: elsewhere, as in one of a group,
    which has a launcher that watches it, this process itself goes on.
    """
    if sys.platform != "linux" or "RANK" in os.environ:
        threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
        return
    watcher, caught = os.getpid(), {signal.SIGCHLD, *SIGNALS}
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, caught)
    if child := os.fork():
        status = wait_for(child, caught)
        if status < 0:
            print(describe_death(stage, signal.Signals(-status).name), file=sys.stderr)
        sys.exit(status if status >= 0 else 128 - status)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    threading.Thread(target=end_with, args=(watcher,), name="parent", daemon=True).start()


def wait_for(child: int, caught: Set[signal.Signals]) -> int:
    """Return the exit status of `child`, negative for a signal; pass `caught` signals on to it.

    A terminal's Ctrl-C has reached it already. A SIGINT of another origin may have, and a second
    one would end it without saving, so SIGTERM asks for the same.
    """
    if sys.platform != "linux":
        raise NotImplementedError
    while True:
        found = signal.sigwaitinfo(caught)
        if found.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
        elif found.si_code <= 0:  # not the kernel's own
            asked = signal.SIGTERM if found.si_signo == signal.SIGINT else found.si_signo
            os.kill(child, asked)


def describe_death(stage: str, name: str) -> str:
    """Return a line that says by what signal `stage` was killed, and what to try."""
    line = f"{stage} was killed by {name}"
    if name == "SIGKILL":
        line += ": most likely memory ran out"
        if stage in SMALLER:
            line += f"; {SMALLER[stage]} needs less"
    elif name in CRASHES:
        line += (
            ": try compile: false, and remove ~/.cache/nanogpt2, where compiled kernels are kept"
        )
    return line + AGAIN.get(stage, "; give the same command again")


def end_with(parent: int) -> None:
    """Send SIGTERM to this process once `parent`, or the DVC that runs it, is gone; for a thread.

    A killed DVC leaves its stage running, and so does the shell that may stand between them.
    """
    dvc = find_dvc()
    end_after(lambda: os.getppid() == parent and (dvc is None or is_alive(dvc)))


def find_dvc() -> psutil.Process | None:
    """Return the process that runs this stage; None where it is another program or user's."""
    try:
        return next(p for p in psutil.Process().parents() if "DVC_STAGE" not in p.environ())
    except (StopIteration, psutil.Error):
        return None


def is_alive(process: psutil.Process) -> bool:
    """Return whether `process` runs, and does not only wait to be taken note of."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
