"""Starting the processes of a group on this machine, with the environment that torchrun gives.

torchrun itself leaves a process that waits in NCCL for a dead one half a minute, and answers an
error with a page; here a death ends the others at once, and an error stays the line that it is.
Resuming needs nobody's last words: states are written whole.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from nanogpt2.base.screen.screen import hand_over
from nanogpt2.base.system.errors import TrainingError
from nanogpt2.base.system.signals import Interruption, caught_signals, end_after
from nanogpt2.base.system.workers import count_cores

LAUNCHER = "NANOGPT2_LAUNCHER"  # the process that launched this one, and ends with it
LAST_SECONDS = 3.0  # how long the others may take to end once one has failed
POLL_SECONDS = 0.05
ALARM = getattr(signal, "SIGALRM", 0)


def is_launched() -> bool:
    """Return whether this process is one that torchrun or `launch` started."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys()


def run_as_group(size: int) -> bool:
    """Run this process's own command in `size` processes; return False where it is one of them.

    Also where it needs no others. Raises as `launch` does.
    """
    if size == 1 or is_launched():
        return False
    launch(size, [sys.executable, *sys.orig_argv[1:]])
    return True


def launch(size: int, command: Sequence[str]) -> None:
    """Run `command` as a group of `size` processes and return when all have ended well.

    SIGINT and SIGTERM are passed on; a second SIGINT ends all at once. A process that fails says
    why itself, and SystemExit follows; TrainingError where it could not.
    """
    shared = os.environ | {
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, count_cores() // size))),
        # or torch would tell each process that fails to take its leave from NCCL
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
        LAUNCHER: str(os.getpid()),
    }
    processes: list[subprocess.Popen[bytes]] = []
    with caught_signals() as interruption:
        try:
            for rank in range(size):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                # in a session of its own, or Ctrl-C would reach it twice
                process = subprocess.Popen(command, env=shared | own, start_new_session=True)
                processes.append(process)
            hand_over()
            statuses = _wait(processes, interruption)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    _judge(statuses, interruption)


def _wait(processes: list[subprocess.Popen[bytes]], interruption: Interruption) -> list[int | None]:
    """Return the exit statuses at the first failure; let the others end then.

    After a signal, or where none fails, return those at the end.
    """
    passed_on = False
    while True:
        statuses = [process.poll() for process in processes]
        if any(statuses) or None not in statuses:
            break
        if interruption.name and not passed_on:
            passed_on = True
            for process in processes:
                _pass_on(process, signal.Signals[interruption.name])
        time.sleep(POLL_SECONDS)
    if _killed(statuses) and not interruption.name:
        return statuses  # the others have nothing to say of it
    deadline = time.monotonic() + LAST_SECONDS
    while any(p.poll() is None for p in processes) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return [process.poll() for process in processes] if interruption.name else statuses


def _pass_on(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Tell `process` of a signal; on Windows Ctrl-C has reached it, from their common console."""
    if sys.platform != "win32" or number != signal.SIGINT:
        process.send_signal(number)


def _killed(statuses: list[int | None]) -> list[int]:
    """Return the ranks that a signal ended, but for the alarm of those that had failed before."""
    return [
        rank
        for rank, status in enumerate(statuses)
        if status is not None and status < 0 and status != -ALARM
    ]


def _judge(statuses: list[int | None], interruption: Interruption) -> None:
    """Say what nobody else can say; end this process too where one failed."""
    if interruption.name and any(statuses) and 1 not in statuses:
        raise TrainingError(f"interrupted by {interruption.name}")
    if (killed := _killed(statuses)) and not interruption.name:
        name = signal.Signals(-(statuses[killed[0]] or 0)).name
        raise TrainingError(
            f"process {killed[0] + 1} of {len(statuses)} was killed by {name}; the same command"
            " goes on from the last state, where one was saved"
        )
    if any(statuses):
        sys.exit(1)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def end_with_launcher() -> None:
    """Send SIGTERM to this process once the one that launched it is gone."""
    launcher = int(os.environ[LAUNCHER])
    if sys.platform == "win32":  # the python.exe of an environment starts another one, a grandchild
        import psutil

        end_after(psutil.Process(launcher).is_running if psutil.pid_exists(launcher) else bool)
    else:
        end_after(lambda: os.getppid() == launcher)
