"""A stage under DVC that a signal ends says so, and ends with those that run it."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios

import pytest
from imports import ROOT

from stages.shared.parent import describe_death

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="Linux has a watcher")

STAGE = """
import os, signal, sys, time
from stages.shared.command import stage_command

@stage_command
def main():
    {body}

main()
"""
PATIENT = """
    def note(number, frame):
        print(signal.Signals(number).name, flush=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, note)
    print("ready", os.getpid(), flush=True)
    time.sleep(0.4)
    time.sleep(0.4)
"""


def start(body: str, stage: str = "train", terminal: int | None = None) -> subprocess.Popen[str]:
    """Start a stage that does `body`, as DVC would start it; in a `terminal` as one types it."""

    def take_terminal() -> None:
        if terminal is not None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    return subprocess.Popen(
        [sys.executable, "-c", STAGE.format(body=body)],
        cwd=ROOT,
        env={**os.environ, "DVC_STAGE": stage, "NANOGPT2_QUIET": "1"},
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=take_terminal,
    )


def child_of(process: subprocess.Popen[str]) -> int:
    """Return the number of the process in which a stage that is PATIENT runs, once it does."""
    assert process.stdout is not None
    return int(process.stdout.readline().removeprefix("ready "))


LINES = [
    ("train", "SIGKILL", ": most likely memory ran out; a smaller batch_size, with more"),
    ("evaluate", "SIGKILL", ": most likely memory ran out; a smaller evaluate.batch_size needs"),
    ("prepare", "SIGKILL", ": most likely memory ran out; give the same command again"),
    ("train", "SIGSEGV", ": try compile: false, and remove ~/.cache/nanogpt2, where"),
    ("train", "SIGBUS", ": try compile: false, and remove ~/.cache/nanogpt2, where"),
    ("sample", "SIGILL", ": try compile: false, and remove ~/.cache/nanogpt2, where"),
    ("evaluate", "SIGABRT", ": try compile: false, and remove ~/.cache/nanogpt2, where"),
    ("train", "SIGTERM", "; the same command goes on from the last state, where one was saved"),
]


@pytest.mark.parametrize(("stage", "name", "line"), LINES)
def test_a_signal_is_named_with_what_to_try(stage: str, name: str, line: str) -> None:
    assert describe_death(stage, name).startswith(f"{stage} was killed by {name}{line}")


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
def test_a_killed_stage_says_so_in_one_line(name: str) -> None:
    process = start(f"os.kill(os.getpid(), signal.{name})")
    assert process.communicate() == ("", describe_death("train", name) + "\n")
    assert process.returncode == 128 + signal.Signals[name]


@pytest.mark.parametrize(("body", "status"), [("pass", 0), ("sys.exit(7)", 7)])
def test_a_stage_that_ends_by_itself_has_its_own_status(body: str, status: int) -> None:
    process = start(f"print('once'); {body}")
    assert process.communicate() == ("once\n", "")
    assert process.returncode == status


@pytest.mark.parametrize(
    ("sent", "received"), [("SIGTERM", "SIGTERM"), ("SIGINT", "SIGTERM"), ("SIGHUP", "SIGHUP")]
)
def test_a_signal_to_the_process_that_dvc_started_reaches_the_stage(
    sent: str, received: str
) -> None:
    process = start(PATIENT)
    child_of(process)
    process.send_signal(signal.Signals[sent])
    assert process.communicate() == (f"{received}\n", "")
    assert process.returncode == 0


def test_ctrl_c_in_a_terminal_reaches_the_stage_once() -> None:
    keyboard, terminal = pty.openpty()
    process = start(PATIENT, terminal=terminal)
    child_of(process)
    os.write(keyboard, b"\x03")
    assert process.communicate() == ("SIGINT\n", "")
    assert process.returncode == 0
    os.close(keyboard)
    os.close(terminal)


def test_the_stage_ends_when_the_process_that_dvc_started_is_killed() -> None:
    process = start(PATIENT.replace("0.4", "30"))
    child = child_of(process)
    process.kill()
    assert process.stdout is not None
    assert process.stdout.readline() == "SIGTERM\n"
    os.kill(child, signal.SIGKILL)
    process.communicate()
