"""Phases of long work by their bytes, as the screen shows them."""

from contextlib import ExitStack

from nanogpt2.screen import screen
from nanogpt2.screen.phase import Phase


class Phases:
    """Shows each phase that `progress` tells of."""

    def __init__(self) -> None:
        self.bar = Phase("")
        self.bars = ExitStack()

    def say(self, line: str) -> None:
        """Show a line above the bar."""
        screen.say(line)

    def progress(self, phase: str, done: int, of: int) -> None:
        """Show that `done` of the bytes of a phase are done."""
        if phase != self.bar.what:
            self.bars.close()
            self.bar = self.bars.enter_context(screen.phase(phase, of, "B"))
        self.bar.reach(done)
        if done >= of:
            self.bars.close()
