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
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, TypeVar, cast

from nanogpt2.base.screen.moving import Watched
from nanogpt2.base.screen.phase import Phase
from nanogpt2.base.screen.state import Screen, Summary, is_quiet, is_verbose

TICK = 0.5  # seconds
Item = TypeVar("Item")

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
        _screen.summary = Summary(what, amount, unit, to, seconds)


def track(
    what: str,
    items: Iterable[Item],
    of: int = 0,
    unit: str = "",
    *,
    size: Callable[[Item], int] = lambda item: 1,
) -> Iterator[Item]:
    """Yield `items` while a phase is shown, of which each is so much done as its `size`."""
    with phase(what, of, unit) as bar:
        for item in items:
            yield item
            bar.add(size(item))


@contextmanager
def phase(
    what: str,
    of: int = 0,
    unit: str = "",
    *,
    begun: int = 0,
    measure: Callable[[], int] | None = None,
    alone: bool = False,
) -> Iterator[Phase]:
    """Show a phase of the work meanwhile; see Phase. It begins with so much `begun`.

    One that is measured and takes long leaves a line. One that may be `alone` is shown where no
    command runs too, and leaves none: whoever shows it there tells of it.
    """
    global _screen
    shown = Phase(what, of, unit, done=begun, measure=measure)
    if _screen is None and not alone:
        yield shown
        return
    before = _screen
    screen = _screen = _screen or Screen("")
    shown.changed = screen.progressed
    screen.begin(shown)
    try:
        yield shown
    finally:
        screen.end(shown, told=alone)
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


def hand_over() -> None:
    """Leave the screen to other processes to the end, the last line too."""
    if _screen is not None:
        _screen.line.clear()
        _screen.still, _screen.summary = True, None


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
        ticker = threading.Thread(target=_tick, args=(screen, over), name="screen", daemon=True)
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


_held: list[threading.RLock] = []


def _before_fork() -> None:
    """Let no thread be about to write while a process is forked, or its child could write never."""
    if _screen is not None:
        _held.append(_screen.line.lock)
        _held[-1].acquire()


def _after_fork() -> None:
    if _held:
        _held.pop().release()


def _after_fork_in_child() -> None:
    """Leave what moves to the parent process."""
    if _screen is not None:
        _held.clear()
        _screen.line.lock, _screen.line.animated, _screen.still = threading.RLock(), False, True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork,
        after_in_child=_after_fork_in_child,
    )


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
