"""The screen of one command: what it is doing, and how and when that is shown."""

import os
import platform
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from nanogpt2.base.screen.moving import MovingLine
from nanogpt2.base.screen.phase import Phase
from nanogpt2.base.system.checksums import hash_file
from nanogpt2.base.system.output import GREEN, is_animated, is_on, paint, takes
from nanogpt2.base.system.words import describe_amount, describe_time, describe_work

QUIET, VERBOSE = "NANOGPT2_QUIET", "NANOGPT2_VERBOSE"
OPTIONS = {  # of every stage and command, by the variable that says the same, also to children
    QUIET: (("-q", "--quiet"), "Show errors, warnings and results alone."),
    VERBOSE: (
        ("-v", "--verbose"),
        "Show more: device, versions, hashes, time of each part.",
    ),
    "NO_COLOR": (("--no-color",), "Show no colours; a pipe or file never has any."),
}
FIRST, FIRST_IN_CI, LAST = 4.0, 30.0, 60.0  # seconds before a log's signs of life; they double
WORTH_A_LINE = 2.0  # seconds of a phase
REDRAWN = 0.1  # seconds between two states of a bar
LIBRARIES = ("torch", "numpy", "triton", "transformers", "tiktoken")


def is_quiet() -> bool:
    """Return whether only errors, warnings and results are shown.

    Of several processes that train one model only the first has more to show.
    """
    return is_on(QUIET) or os.environ.get("RANK", "0") != "0"


def is_verbose() -> bool:
    """Return whether details are shown."""
    return is_on(VERBOSE) and not is_quiet()


def _is_file(stream: TextIO | None) -> bool:
    """Return whether a stream is one of the system's: a terminal, a pipe, a file."""
    try:
        return stream is not None and stream.fileno() >= 0
    except (OSError, ValueError):  # a stream of a test's or a notebook's own
        return False


@dataclass(frozen=True)
class Summary:
    """What `done` was told."""

    what: str = "done"
    amount: int = 0
    unit: str = ""
    to: str | Path | None = None
    seconds: float | None = None

    def describe(self, seconds: float) -> str:
        """Return it as a line about a command that took `seconds`."""
        seconds = seconds if self.seconds is None else self.seconds
        line = f"{self.what or 'done'} in {describe_time(seconds)}"
        if self.unit:
            line = describe_work(self.amount, self.unit, seconds, what=self.what)
        return line if self.to is None else f"{line} -> {self.to}"

    def describe_file(self) -> str:
        """Return the size and hash of the result, where that is a file."""
        if self.to is None or not Path(self.to).is_file():
            return ""
        size = describe_amount(Path(self.to).stat().st_size, "B")
        return f"{self.to}: {size}, SHA-256 {hash_file(self.to)}"


class Screen:
    """What is shown of the command `name` from now on; without one, of the library at work."""

    def __init__(self, name: str, *, first: float | None = None) -> None:
        self.name, self.began = name, time.perf_counter()
        self.patience = first or (FIRST_IN_CI if is_on("CI") else FIRST)
        self.line = MovingLine(sys.stderr, animated=is_animated(sys.stderr) and not is_quiet())
        self.phases = [Phase("starting")]
        self.parts: dict[str, float] = {}  # seconds of each phase that has ended
        self.summary: Summary | None = Summary()
        self.still = not _is_file(sys.stderr)  # nobody would see it move

    @property
    def seconds(self) -> float:
        """Seconds since the command began."""
        return time.perf_counter() - self.began

    def prefixed(self, text: str) -> str:
        """Return `text` behind the command's name."""
        return f"{self.name}: {text}" if self.name else text

    def draw(self) -> None:
        """Draw the phase under way, where that is a terminal."""
        if self.line.animated and not self.still:
            width = self.line.width - len(self.prefixed(""))
            ascii_only = not takes(self.line.stream, "\u2588\u258f")
            self.line.draw(self.prefixed(self.phases[-1].meter(width, ascii_only=ascii_only)))

    def progressed(self) -> None:
        """Draw the phase under way again, unless that was done just now."""
        if self.line.animated and time.monotonic() - self.line.drawn >= REDRAWN:
            self.draw()

    def tick(self) -> None:
        """Show a sign of life where there was none for a while."""
        line, silence = self.line, time.monotonic() - self.line.written
        if line.animated and (len(self.phases) > 1 or silence > 1):
            self.draw()
        elif not line.animated and not self.still and not is_quiet() and silence >= self.patience:
            with line.lock:
                if line.between_lines:
                    self.patience = min(2 * self.patience, LAST)
                    self.write(self.prefixed(self.phases[-1].describe()))

    def write(self, text: str, stream: TextIO | None = None) -> None:
        """Write a line above what moves."""
        with self.line.lock, suppress(OSError, ValueError):  # nobody may be there to read it
            self.line.clear()
            print(text, file=stream or sys.stderr, flush=True)

    def begin(self, phase: Phase) -> None:
        """Show a phase within the one under way."""
        self.phases[0].what = "working"
        self.phases.append(phase)
        self.draw()

    def end(self, phase: Phase, *, told: bool) -> None:
        """Show a phase no more; a measured one that took long leaves a line, if not `told` else."""
        self.phases.remove(phase)
        self.parts[phase.what] = self.parts.get(phase.what, 0.0) + phase.seconds
        self.line.clear()
        long = bool(phase.of) and phase.seconds >= WORTH_A_LINE
        if not (told or is_quiet()) and (long or is_verbose()):
            self.write(phase.describe_end())

    def summarise(self) -> None:
        """Write the command's last line, and where details are asked for what it ran with."""
        if self.summary is None:
            return
        if is_verbose():
            parts = {**self.parts, "all": self.seconds}
            times = ", ".join(f"{part} {describe_time(each)}" for part, each in parts.items())
            there = {name: sys.modules.get(name) for name in LIBRARIES}
            versions = {name: getattr(found, "__version__", "") for name, found in there.items()}
            listed = [f"{name} {version}" for name, version in versions.items() if version]
            self.write(f"time: {times}")
            self.write(", ".join([f"versions: Python {platform.python_version()}", *listed]))
            if line := self.summary.describe_file():
                self.write(line)
        if not is_quiet():
            name = paint(f"{self.name}:", GREEN, sys.stderr)
            self.write(f"{name} {self.summary.describe(self.seconds)}")
