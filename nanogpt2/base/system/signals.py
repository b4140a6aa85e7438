"""Signals: Ctrl-C, SIGTERM and a closed terminal ask a run to end at its next safe moment."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
if sys.platform != "win32":  # a terminal that was closed, a session that was lost
    SIGNALS += (signal.SIGHUP,)


class Interrupted(Exception):  # noqa: N818 - no error of anybody's
    """A signal asked the run to end; raised where nothing is half done."""


class Interruption:
    """Remembers that a signal came; a second SIGINT ends the program at once.

    `agree` gives the number of the signal that a group of processes goes by, of each one's own.
    """

    def __init__(self, agree: Callable[[int], int] = int) -> None:
        self.agree = agree
        self.name: str | None = None

    def check(self) -> None:
        """Raise Interrupted if a signal has come; in a group, all processes check together."""
        if number := self.agree(signal.Signals[self.name] if self.name else 0):
            raise Interrupted(signal.Signals(number).name)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Take note of signal `number`."""
        if self.name and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = self.name or signal.Signals(number).name


@contextmanager
def caught_signals(agree: Callable[[int], int] = int) -> Iterator[Interruption]:
    """Catch SIGNALS for a while; only the main thread can, elsewhere none is caught.

    One that is ignored, as `nohup` asks, stays ignored.
    """
    interruption = Interruption(agree)
    if threading.current_thread() is not threading.main_thread():
        yield interruption
        return
    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, interruption.handle) for number in heeded}
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_after(goes_on: Callable[[], bool]) -> None:
    """Wait while `goes_on` answers True, then send SIGTERM to this process; for a thread."""
    while goes_on():
        time.sleep(0.5)
    if sys.platform == "win32":  # where `os.kill` would end it at once, with nothing saved
        signal.raise_signal(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
