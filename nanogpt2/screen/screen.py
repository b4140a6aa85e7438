"""What a stage or command shows: signs of life, remarks, and one line at its end.

Results, which people pipe, are printed to stdout as ever. All else goes to stderr, through here:

    with running("evaluate"):                           # what makes commands does this
        with phase("val", 2_800_000, "tokens") as bar:  # share, amount, speed, time left
            bar.add(512)
        with phase("compiling kernels"):                # cannot be measured: its time
            ...
        done("of val", 2_800_000, "tokens", to="metrics/eval.json")

ends with `evaluate: 2,800,000 tokens of val in 12.3 s (228,000 tokens/s) -> metrics/eval.json`.
A terminal has a line that moves; a pipe, log or CI has whole lines, fewer the longer it takes.
"""

import os
import platform
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from nanogpt2.base.checksums import hash_file
from nanogpt2.base.output import GREEN, is_animated, is_on, paint, takes
from nanogpt2.base.words import describe_amount, describe_time, describe_work
from nanogpt2.screen.moving import MovingLine, Watched
from nanogpt2.screen.phase import Phase

QUIET, VERBOSE = "NANOGPT2_QUIET", "NANOGPT2_VERBOSE"
OPTIONS = {  # of every stage and command, by the variable that says the same, also to children
    QUIET: (("-q", "--quiet"), "Show errors, warnings and results alone."),
    VERBOSE: (("-v", "--verbose"), "Show more: versions, hashes, the time of each part."),
    "NO_COLOR": (("--no-color",), "Show no colours; a pipe or file never has any."),
}
FIRST, FIRST_IN_CI, LAST = 4.0, 30.0, 60.0  # seconds before a log's signs of life; they double
WORTH_A_LINE = 2.0  # seconds of a phase
REDRAWN = 0.1  # seconds between two states of a bar
TICK = 0.5  # seconds
LIBRARIES = ("torch", "numpy", "triton", "transformers", "tiktoken")


def is_quiet() -> bool:
    """Return whether only errors, warnings and results are shown.

    Of several processes that train one model only the first has more to show.
    """
    return is_on(QUIET) or os.environ.get("RANK", "0") != "0"


def is_verbose() -> bool:
    """Return whether details are shown."""
    return is_on(VERBOSE) and not is_quiet()


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
        line = f"{self.what} in {describe_time(seconds)}"
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
        self.summary = Summary()
        self.still = False

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

    def end(self, phase: Phase) -> None:
        """Show a phase no more; one that took long leaves a line."""
        self.phases.remove(phase)
        self.parts[phase.what] = self.parts.get(phase.what, 0.0) + phase.seconds
        self.line.clear()
        if self.name and not is_quiet() and (phase.seconds >= WORTH_A_LINE or is_verbose()):
            self.write(phase.describe_end())

    def summarise(self) -> None:
        """Write the command's last line, and where details are asked for what it ran with."""
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


_screen: Screen | None = None


def say(line: str) -> None:
    """Show a remark on stderr, unless it is quiet."""
    if not is_quiet():
        (_screen or Screen("")).write(line)


def detail(line: str) -> None:
    """Show a remark on stderr, where details are asked for."""
    if is_verbose():
        say(line)


def result(line: str) -> None:
    """Show a line of the result on stdout."""
    (_screen or Screen("")).write(line, sys.stdout)


def done(
    what: str = "",
    amount: int = 0,
    unit: str = "",
    *,
    to: str | Path | None = None,
    seconds: float | None = None,
) -> None:
    """Tell what the command did, how much, and where the result is: its last line, once it ends.

    `done("of val", 512, "tokens")` says `512 tokens of val` and their speed; `done("2 models")`
    just that. Unless `seconds` are given it takes as long as the command.
    """
    if _screen is not None:
        _screen.summary = Summary(what or "done", amount, unit, to, seconds)


@contextmanager
def phase(
    what: str, of: int = 0, unit: str = "", *, begun: int = 0, alone: bool = False
) -> Iterator[Phase]:
    """Show a phase of the work meanwhile; `of` how much in `unit`, where it can be measured.

    It begins with so much `begun`. Where no command runs it is shown only if it may be `alone`.
    """
    global _screen
    if _screen is None and not alone:
        yield Phase(what, of, unit, done=begun)
        return
    before = _screen
    screen = _screen = _screen or Screen("")
    shown = Phase(what, of, unit, done=begun, changed=screen.progressed)
    screen.begin(shown)
    try:
        yield shown
    finally:
        screen.end(shown)
        _screen = before


@contextmanager
def still() -> Iterator[None]:
    """Show nothing that moves meanwhile: another process has the screen, or people type."""
    if (screen := _screen) is None:
        yield
        return
    before, screen.still = screen.still, True
    screen.line.clear()
    try:
        yield
    finally:
        screen.still = before


@contextmanager
def running(
    name: str, variables: Iterable[str] = (), *, first: float | None = None
) -> Iterator[None]:
    """Show what the stage or command `name` does meanwhile, and that it is alive.

    `variables` are those of OPTIONS that were asked for; what it starts inherits them. Where it
    ends well without `done`, a line says so. A log has its `first` sign of life after so many
    seconds of silence.
    """
    global _screen
    before, streams = _screen, (sys.stdout, sys.stderr)
    with _set(variables):
        screen = _screen = Screen(name, first=first)
        sys.stdout, sys.stderr = (s and cast(TextIO, Watched(s, screen.line)) for s in streams)
        over = threading.Event()
        ticker = threading.Thread(target=_tick, args=(screen, over), daemon=True)
        try:
            screen.draw()
            ticker.start()
            yield
            screen.summarise()
        except SystemExit:
            if screen.summary != Summary():
                screen.summarise()
            raise
        finally:
            over.set()
            ticker.join()
            screen.line.clear()
            (sys.stdout, sys.stderr), _screen = streams, before


def _tick(screen: Screen, over: threading.Event) -> None:
    while not over.wait(min(TICK, screen.patience / 2)):
        screen.tick()


@contextmanager
def _set(variables: Iterable[str]) -> Iterator[None]:
    """Set variables of the environment meanwhile."""
    before = {variable: os.environ.get(variable) for variable in variables}
    os.environ.update(dict.fromkeys(before, "1"))
    try:
        yield
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
