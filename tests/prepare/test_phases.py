"""What a long preparation shows: a bar on a terminal, elsewhere a line for each long phase."""

import os
import pty
import subprocess
import sys
import termios
from contextlib import suppress

import pytest
from imports import ROOT

from nanogpt2.prepare.phases import Phases

SCRIPT = """
import time
from nanogpt2.prepare.phases import Phases
with Phases() as shown:
    for done in range(1, 6):
        time.sleep(0.15)
        shown.progress("read", done * 20_000_000, 100_000_000)
"""


def test_where_there_is_no_terminal_long_phases_have_a_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Phases() as shown:
        for phase, size in (("read", 1 << 26), ("encode", 1000)):
            for done in range(5):
                shown.progress(phase, done * size // 4, size)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("read: 67 MB in 0s, ")
    assert err.count("\n") == 1


def test_on_a_terminal_a_bar_shows_speed_and_the_time_left() -> None:
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (25, 80))
    subprocess.run([sys.executable, "-c", SCRIPT], stderr=child, cwd=ROOT, check=True)
    os.close(child)
    shown = b""
    with suppress(OSError):  # which is how Linux says that the other side is closed
        while part := os.read(parent, 4096):
            shown += part
    os.close(parent)
    bars = [line for line in shown.decode().split("\r") if "M/100M" in line]
    assert bars
    assert all(bar.startswith("read: ") and "B/s]" in bar for bar in bars)
    assert "<00:0" in bars[-1]  # the time left
    assert "read: 100 MB in 1s, " in shown.decode()
