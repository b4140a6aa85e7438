"""Phases of long work: a bar with MB/s and the time left on a terminal, a line each elsewhere."""

import sys
import time
from contextlib import suppress
from typing import Any

from nanogpt2.base.words import describe_seconds

WORTH_A_LINE = 1 << 25  # bytes


class Phases:
    """Shows each phase by its bytes, on stderr; short ones only as a bar. A context."""

    def __init__(self) -> None:
        self.phase = ""
        self.start = time.time()  # a phase begins where the one before it ends
        self.bar: Any = None

    def __enter__(self) -> "Phases":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def say(self, line: str) -> None:
        """Show a line above the bar."""
        with suppress(OSError, ValueError):  # nobody may be there to read it
            print(line, file=sys.stderr)

    def progress(self, phase: str, done: int, of: int) -> None:
        """Show that `done` of the bytes of a phase are done."""
        if phase != self.phase:
            self._begin(phase, of)
        if self.bar is not None:
            self.bar.update(done - self.bar.n)
        if done >= of:
            self._close()
            seconds, self.start = time.time() - self.start, time.time()
            if of >= WORTH_A_LINE:
                speed = of / 1e6 / max(seconds, 1e-9)
                self.say(
                    f"{phase}: {of / 1e6:,.0f} MB in {describe_seconds(seconds)}, {speed:,.0f} MB/s"
                )

    def _begin(self, phase: str, of: int) -> None:
        self._close()
        self.phase = phase
        if of >= WORTH_A_LINE and sys.stderr.isatty():
            from tqdm import tqdm  # only where there is something to show

            self.bar = tqdm(
                total=of, desc=phase, unit="B", unit_scale=True, leave=False, dynamic_ncols=True
            )
            self.bar.start_t = self.start

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
