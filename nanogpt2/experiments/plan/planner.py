"""What is known of the text and the machine while a plan is made, and what finds out more of it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nanogpt2.base.screen.screen import phase
from nanogpt2.experiments.plan.choose import ME, STEPPING, Facts, Grid, Planned, Tokens
from nanogpt2.experiments.plan.ends import LEAST_APART, Start, predict_end
from nanogpt2.experiments.plan.laws import Law, read_law
from nanogpt2.experiments.plan.pilot import PILOT, rehearse
from nanogpt2.experiments.plan.recipe import Choice, make_values
from nanogpt2.experiments.plan.timing import PARTS, SECONDS, Clock, Timing, time_steps
from nanogpt2.tokens.tokenizer import Tokenizer

REHEARSED = 4  # times fewer steps than planned
LEAST_REHEARSED = 60  # steps
TIMED = (  # besides the pilot's shape
    replace(PILOT, width=64, batch=32),
    replace(PILOT, width=256, layers=4, batch=8),
)
MOST_TIMED = 5  # choices after which the search for the best ends


@dataclass
class Planner:
    """What is known of the text and the machine, and how well each choice would do."""

    facts: Facts
    texts: tuple[str, str]  # of training and validation
    device: str
    start: float  # seconds until a process trains
    rehearsing: float  # seconds that a rehearsal takes at most

    def __post_init__(self) -> None:
        self.law: Law = read_law()
        self.grid = Grid(self.facts)
        self.clock = Clock()
        self.timings: dict[tuple[int, ...], Timing] = {}
        self.starts: dict[Choice, Start] = {}  # of a choice without its steps
        for choice in (PILOT, *TIMED):
            self.time(choice, self.facts.tokens[0].tokenizer)

    def time(self, choice: Choice, tokenizer: Tokenizer) -> Timing:
        """Return what a step of `choice` takes, timed once."""
        shape = shape_of(choice, tokenizer)
        key = tuple(shape.values())
        if key not in self.timings:
            values = {**make_values(choice), "vocab_size": tokenizer.size, "device": self.device}
            with phase(f"timing {choice.layers} layers of {choice.width}"):
                self.timings[key] = time_steps(values, seconds=SECONDS)
            self.clock.add(shape, self.timings[key].step)
        return self.timings[key]

    def best(self, seconds: float) -> Planned:
        """Return the best choice for `seconds`, timed."""
        for _ in range(MOST_TIMED):
            found = self.grid.best(self.law, self.clock, self.left(seconds))
            tokenizer = found.tokens.tokenizer
            if tuple(shape_of(found.choice, tokenizer).values()) in self.timings:
                return found
            self.time(found.choice, tokenizer)
        return self.grid.best(self.law, self.clock, self.left(seconds))

    def left(self, seconds: float) -> float:
        """Return what of `seconds` a process has to train in."""
        return seconds - self.start

    def rehearse(self, planned: Planned) -> float:
        """Train with fewer of the steps of `planned`, and return the loss.

        The law learns of it, and the clock how long steps take in the long run.
        """
        most = max(int(self.rehearsing / planned.step_seconds), LEAST_REHEARSED)
        steps = min(planned.choice.steps // REHEARSED, most)
        start, step_seconds = self._start(planned, steps)
        self.starts[kind_of(planned.choice)] = start
        self.clock.add(shape_of(planned.choice, planned.tokens.tokenizer), step_seconds)
        return start.loss

    def finish(self, planned: Planned, seconds: float) -> tuple[Planned, Start | None]:
        """Train with half of the steps of `planned`; return it as its end is known by that.

        And what the half reached. Where that takes longer than a rehearsal may, or the start is not
        known, nothing is done.
        """
        choice, steps = planned.choice, planned.choice.steps // 2
        quarter = self.starts.get(kind_of(choice))
        long = steps * planned.step_seconds > self.rehearsing
        if quarter is None or long or steps < LEAST_APART * quarter.steps:
            return planned, None
        half, step_seconds = self._start(planned, steps)
        apart = half.steps, quarter.steps  # in which the step's time was found twice
        step = float(np.average([step_seconds, planned.step_seconds], weights=apart))
        self.clock.add(shape_of(choice, planned.tokens.tokenizer), step)
        choice = replace(choice, steps=int(self.left(seconds) * STEPPING / step))
        columns = self.columns(choice, planned.tokens)
        (expected,), _ = self.law.predict(columns, ME)
        loss, spread = predict_end(columns, quarter, half, expected=float(expected))
        self.law = self.law.given(columns, [loss], ME)
        return Planned(choice, planned.tokens, loss, spread, step), half

    def _start(self, planned: Planned, steps: int) -> tuple[Start, float]:
        """Train with so many `steps`; return what that reached, and the seconds of a step."""
        choice, tokenizer = replace(planned.choice, steps=steps), planned.tokens.tokenizer
        train, val = self.texts
        with phase("rehearsing", steps, "steps") as bar:
            ((loss, own),), step_seconds = rehearse(
                choice,
                tokenizer,
                train,
                [val, train],
                device=self.device,
                judged=(steps,),
                after_step=lambda _: bar.add(1),
            )
        self.law = self.law.given(self.columns(choice, planned.tokens), [loss], ME)
        return Start(steps, loss, own), step_seconds

    def columns(self, choice: Choice, tokens: Tokens) -> dict[str, Any]:
        """Return what the law reads of a choice."""
        of_tokens = {"vocab_size": tokens.tokenizer.size, "train_tokens": tokens.train_tokens}
        return {**self.facts.columns, **vars(choice), **of_tokens}


def shape_of(choice: Choice, tokenizer: Tokenizer) -> dict[str, int]:
    """Return what of `choice` decides how long a step takes."""
    values = {**vars(choice), "vocab_size": tokenizer.size}
    return {part: values[part] for part in PARTS}


def kind_of(choice: Choice) -> Choice:
    """Return `choice` without its steps, which follow the clock."""
    return replace(choice, steps=0)
