"""What training shows: the line of each evaluation, and a bar on a terminal."""

import time
from contextlib import ExitStack
from pathlib import Path

from nanogpt2.base.screen.phase import Phase
from nanogpt2.base.screen.screen import phase, result
from nanogpt2.base.screen.state import is_quiet
from nanogpt2.base.system.words import describe_seconds
from nanogpt2.report.stopwatch import Stopwatch


class Progress:
    """Prints training's lines, also to `log_file`.

    Speed counts the time in steps alone, by `stopwatch`; the time left counts evaluations and
    saving too. With `shown` false, as in all processes of a group but one, it prints nothing.
    """

    def __init__(self, log_file: Path | None, stopwatch: Stopwatch, *, shown: bool = True) -> None:
        self.log_file = log_file
        self.stopwatch = stopwatch
        self.shown = shown
        self.bar: Phase | None = None
        self.bars = ExitStack()
        self.first = self.last = self.tokens_per_step = self.steps_timed = 0
        self.start = self.seconds_timed = 0.0
        self.speed: float | None = None  # tokens a second between the last two evaluations

    def begin(self, first: int, last: int, *, tokens_per_step: int) -> None:
        """Begin at step `first` of `last`."""
        self.first, self.last, self.tokens_per_step = first, last, tokens_per_step
        self.start = time.perf_counter()
        if self.shown:
            bar = phase("training", last, "iterations", begun=first, alone=True)
            self.bar = self.bars.enter_context(bar)

    def end(self) -> None:
        """Take the bar away."""
        self.bars.close()
        self.bar = None

    def say(self, line: str) -> None:
        """Print `line` above the bar, and append it to the log; if it is quiet only warnings."""
        if not self.shown:
            return
        if self.log_file is not None:
            self._log(line)
        if line.startswith("warning: ") or not is_quiet():
            result(line)

    def _log(self, line: str) -> None:
        """Append `line` to the log; where that fails the log is given up, and a warning shown."""
        assert self.log_file is not None
        try:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            with self.log_file.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            result(f"warning: no more lines go to {self.log_file}: {error.strerror}")
            self.log_file = None

    def step_done(self) -> None:
        """Count one step of the optimizer."""
        self.steps_timed += 1
        if self.bar is not None:
            self.bar.add(1)

    def seconds_left(self, step: int) -> float:
        """Return the expected time from `step` to the end."""
        elapsed = time.perf_counter() - self.start
        return elapsed / max(step - self.first, 1) * (self.last - step)

    def evaluated(self, step: int, *, train_loss: float, val_loss: float) -> None:
        """Print the line of the evaluation after `step` steps."""
        elapsed = time.perf_counter() - self.start
        line = (
            f"iter {step}: train loss {train_loss:.4f}, val loss {val_loss:.4f}"
            f" (time: {elapsed:.2f}s)"
        )
        seconds, self.speed = self.stopwatch.step_seconds, None
        if self.steps_timed:
            self.speed = self.tokens_per_step * self.steps_timed / (seconds - self.seconds_timed)
            line += f", {self.speed:,.0f} tokens/s"
        if self.first < step < self.last:
            line += f", {describe_seconds(self.seconds_left(step))} left"
        self.seconds_timed, self.steps_timed = seconds, 0
        self.say(line)
