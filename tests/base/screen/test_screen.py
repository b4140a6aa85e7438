"""What a command shows: signs of life, phases and one last line, on terminals, in pipes, in CI."""

import io
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path

import pytest
from imports import ROOT

from nanogpt2.base.screen import screen
from nanogpt2.base.screen.phase import Phase
from nanogpt2.base.screen.state import QUIET, VERBOSE

# A command that shows each kind of thing; what it imports tells when that began.
WORK = """
import sys
from nanogpt2.base.screen import screen
with screen.running("work", first=0.02):
    import heavy
    with screen.phase("counting", 4, "tokens") as bar:
        for _ in range(4):
            bar.add(1)
    screen.say("a remark")
    print("a result", flush=True)
    screen.done("of text", 4, "tokens", to="there")
"""
HEAVY = """
import sys
print("heavy begins", file=sys.stderr, flush=True)
"""
BLOCKED = """
import sys
sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment that asks for nothing."""
    for name in ("CI", "NO_COLOR", "FORCE_COLOR", QUIET, VERBOSE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}.")


def on_terminal(*arguments: str, **environment: str) -> str:
    """Return what Python shows on a terminal of 80 columns."""
    parent, child = pty.openpty()
    termios.tcsetwinsize(child, (25, 80))
    subprocess.run(
        [sys.executable, *arguments],
        stdin=child, stdout=child, stderr=child, env=os.environ | environment, check=True,
    )  # fmt: skip
    os.close(child)
    shown = b""
    with suppress(OSError):  # which is how Linux says that the other side is closed
        while part := os.read(parent, 4096):
            shown += part
    os.close(parent)
    return shown.decode().replace("\r\n", "\n")


def work(heavy: str = HEAVY) -> tuple[str, str]:
    Path("heavy.py").write_text(heavy, encoding="utf-8")
    return ("-c", WORK)


def test_a_terminal_shows_a_sign_of_life_before_what_takes_long_to_import() -> None:
    shown = on_terminal(*work())
    assert shown.startswith("\rwork: starting\r")
    assert "heavy begins" in shown
    assert "\rwork: counting:   0%|" in shown


@pytest.mark.parametrize("environment", [{"CI": "true"}, {"TERM": "dumb"}, {QUIET: "1"}], ids=str)
def test_where_nobody_looks_on_nothing_moves(environment: dict[str, str]) -> None:
    shown = on_terminal(*work(), **environment)
    assert "\r" not in shown
    assert "a result\n" in shown
    assert (" 4 tokens of text in " in shown) == (QUIET not in environment)


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"CI": "1"}, True)],
    ids=str,
)
def test_a_terminal_has_colours_unless_somebody_minds(
    environment: dict[str, str], coloured: bool
) -> None:
    assert ("\x1b[" in on_terminal(*work(), **environment)) == coloured


def test_a_pipe_has_a_sign_of_life_while_an_import_takes_long() -> None:
    """It comes while the import waits for what this test writes once it has read it."""
    with subprocess.Popen(
        [sys.executable, *work(BLOCKED)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        assert process.stderr.readline() == "work: starting for 0s\n"
        out, err = process.communicate("go on\n")
    assert out == "a result\n"
    lines = [line for line in err.splitlines() if not line.startswith("work: starting for ")]
    assert lines[0] == "a remark"
    assert lines[1].startswith("work: 4 tokens of text in 0.")
    assert lines[1].endswith("tokens/s) -> there")
    assert "\r" not in err


def test_colours_can_be_asked_for_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    done = subprocess.run(
        [sys.executable, *work()], stdin=subprocess.DEVNULL, capture_output=True, check=True
    )
    assert b"\x1b[32mwork:\x1b[0m 4 tokens" in done.stderr
    assert b"\x1b" not in done.stdout


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return sys.__stderr__.fileno() if sys.__stderr__ else 2

    def lines(self) -> list[str]:
        """Return what is seen on it in the end: what was written over is gone."""
        seen = []
        for line in self.getvalue().split("\n"):
            cells: list[str] = []
            for part in line.split("\r"):
                cells[: len(part)] = part
            seen.append("".join(cells).rstrip())
        return seen


@contextmanager
def terminal() -> Iterator[Terminal]:
    """Let a terminal be stdout and stderr."""
    stream = Terminal()
    with redirect_stdout(stream), redirect_stderr(stream):
        yield stream


def test_what_moves_goes_before_anything_else_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with terminal() as seen, screen.running("work"), screen.phase("reading a book"):
        print("whole lines")
        with screen.phase("writing another one"):
            sys.stdout.write("and parts")
            with screen.phase("not shown in the middle of a line"):
                sys.stdout.write(" of lines\n")
        screen.done("two books")
    lines = seen.lines()
    assert lines[:2] == ["whole lines", "and parts of lines"]
    assert lines[2].startswith("work: two books in 0.")
    assert lines[3:] == [""]


def fail() -> None:
    with screen.running("work"):
        screen.done("all")
        raise ValueError("wrong")


def test_an_error_leaves_no_last_line_and_streams_are_as_before() -> None:
    with terminal() as seen:
        with pytest.raises(ValueError, match="wrong"):
            fail()
        assert sys.stdout is seen
        assert seen.lines() == [""]


def test_a_library_shows_no_phases_but_what_may_be_alone() -> None:
    with terminal() as seen:
        with screen.phase("reading", 3, "tokens"):
            screen.done("nothing")
        assert seen.getvalue() == ""
        with screen.phase("training", 3, "iterations", alone=True) as bar:
            bar.add(3)
            screen.result("iter 3")
    assert "training:   0%|" in seen.getvalue()
    assert seen.lines() == ["iter 3", ""]


def test_details_are_the_parts_the_versions_and_the_hash_of_the_result(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("result.txt").write_text("abc", encoding="utf-8")
    with screen.running("work", [VERBOSE]):
        with screen.phase("reading"):
            screen.detail("a detail")
        screen.done("a text", to="result.txt")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "a detail"
    assert lines[1].startswith("reading: 0.")
    assert lines[2].startswith("time: reading 0.")
    assert lines[3].startswith("versions: Python 3.")
    assert lines[4].startswith("result.txt: 3 B, SHA-256 ba7816bf8f01cfea")
    assert lines[5].startswith("work: a text in 0.")
    assert VERBOSE not in os.environ


def test_what_is_asked_for_holds_for_what_a_command_starts() -> None:
    with screen.running("work", [QUIET]):
        assert os.environ[QUIET] == "1"
    assert QUIET not in os.environ


def test_a_process_that_is_forked_can_write(capfd: pytest.CaptureFixture[str]) -> None:
    with screen.running("work", first=0.001):
        for _ in range(20):
            if (child := os.fork()) == 0:
                print("child", flush=True)
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    assert capfd.readouterr().out.count("child") == 20


def test_a_bar_needs_only_what_the_encoding_has() -> None:
    bar = Phase("reading", 100, "B", done=0)
    bar.add(50)
    assert bar.meter(60, ascii_only=True).isascii()
    assert "█" in bar.meter(60, ascii_only=False)
    assert len(bar.meter(60, ascii_only=False)) <= 60


@pytest.mark.parametrize(
    ("of", "unit", "done", "told"),
    [
        (0, "", 0, "work for 0s"),
        (0, "characters", 1200, "work: 1,200 characters in 0s"),
        (2_000_000, "B", 1_000_000, "work: 50% of 2.0 MB, 0s left"),
        (8, "trials", 0, "work for 0s"),
    ],
)
def test_a_phase_says_how_it_stands(of: int, unit: str, done: int, told: str) -> None:
    phase = Phase("work", of, unit)
    phase.reach(done)
    assert phase.describe() == told
