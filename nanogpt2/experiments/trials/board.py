"""What a sweep shows: a table that is drawn anew on a terminal, a line for each event elsewhere."""

import math
import shutil
import sys
import time
from collections.abc import Sequence

from nanogpt2.base.screen import screen
from nanogpt2.base.screen.state import is_quiet
from nanogpt2.base.system.output import is_animated
from nanogpt2.base.system.words import describe_seconds
from nanogpt2.experiments.trials.trial import FAILED, FINISHED, RUNNING, STOPPED, WAITING, Trial

SECONDS = 0.5  # between two drawings
ORDER = (RUNNING, FAILED, FINISHED, STOPPED, WAITING)


class Board:
    """Shows trials on stderr, so that stdout has the results alone."""

    def __init__(self, split: str = "val") -> None:
        self.split = split
        self.live = is_animated(sys.stderr) and not is_quiet()
        self.drawn = 0  # lines
        self.next = 0.0

    def say(self, *lines: str) -> None:
        """Show lines that stay."""
        self._clear()
        screen.say("\n".join(lines))

    def began(self, trial: Trial) -> None:
        """Say that a trial runs."""
        again = f", attempt {trial.attempts}" if trial.attempts > 1 else ""
        if not self.live or again:
            self.say(f"{trial.name}: {trial.title} (lines in {trial.log}{again})")

    def ended(self, trial: Trial, trials: Sequence[Trial], lines: Sequence[str] = ()) -> None:
        """Say how a trial ended, with the last `lines` that it printed where it failed."""
        done = sum(each.state in (FINISHED, STOPPED, FAILED) for each in trials)
        said = describe(trial, self.split)
        if trial.state == FAILED:
            self._clear()
            failed = [f"{trial.name}: failed: {trial.title}", *(f"  {line}" for line in lines)]
            print(*failed, sep="\n", file=sys.stderr, flush=True)
        elif not self.live:
            took = describe_seconds(trial.seconds)
            self.say(f"{trial.name}: {said} in {took} ({done} of {len(trials)})")

    def refresh(self, trials: Sequence[Trial]) -> None:
        """Draw the table anew, now and then."""
        if not self.live or time.monotonic() < self.next:
            return
        self._clear()
        self.next = time.monotonic() + SECONDS
        width, height = shutil.get_terminal_size()
        lines = [line[: width - 1] for line in table(trials, self.split, height - 2)]
        print(*lines, sep="\n", file=sys.stderr, flush=True)
        self.drawn = len(lines)

    def end(self) -> None:
        """Take the table away."""
        self._clear()

    def _clear(self) -> None:
        if self.drawn:
            print(f"\x1b[{self.drawn}A\x1b[J", end="", file=sys.stderr)
            self.drawn = 0


def table(trials: Sequence[Trial], split: str, height: int) -> list[str]:
    """Return a line a trial, those that run first, and the counts of the states."""
    counts = [f"{sum(t.state == state for t in trials)} {state}" for state in ORDER]
    losses = {trial.name: final_loss(trial, split) for trial in trials}
    lowest = min(losses.values(), default=math.inf)
    rows = sorted(trials, key=lambda trial: (ORDER.index(trial.state), losses[trial.name]))
    lines = ["  state     step          val loss  left      experiment"]
    for trial in rows[: max(height - 2, 1)]:
        loss = f"{losses[trial.name]:.4f}" if trial.state == FINISHED else _estimate(trial)
        mark = "*" if losses[trial.name] == lowest < math.inf else " "
        steps = f"{trial.of if trial.state == FINISHED else trial.step}/{trial.of}"
        left = trial.left if trial.state == RUNNING else ""
        row = f"{mark} {trial.state:<8}  {steps:<12}  {loss:>8}  {left:<8}  {trial.name}"
        lines.append(f"{row}  {trial.title}")
    return [*lines, "  " + ", ".join(count for count in counts if count[0] != "0")]


def _estimate(trial: Trial) -> str:
    """Return the last loss that training told: of some batches, so not to the last digit."""
    return f"~{trial.losses[trial.step]:.3f}" if trial.losses else ""


def final_loss(trial: Trial, split: str) -> float:
    """Return the loss of a finished trial on a whole split, infinity for any other."""
    return trial.figure(split, "loss") if trial.state == FINISHED else math.inf


def describe(trial: Trial, split: str) -> str:
    """Return how a trial ended, in words."""
    if trial.state == FINISHED:
        return f"{split} loss {trial.figure(split, 'loss'):.4f}"
    if trial.state == STOPPED:
        return f"stopped at step {trial.step} of {trial.of}"
    return trial.state
