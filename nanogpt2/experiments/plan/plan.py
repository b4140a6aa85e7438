"""The plan: figures of the text, a pilot on it, steps that are timed, and then the choice.

The shape that the law takes for the best is timed, which may make another one the best, until none
is left; what is chosen is then rehearsed, with a quarter of its steps, and what that gives corrects
the law, which may make another one the best.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from nanogpt2.base.screen.screen import done, phase, say
from nanogpt2.base.system.errors import ConfigError, DataError, ExtraError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.config.config import set_values
from nanogpt2.experiments.candidates import read_config, read_texts, train_bpes
from nanogpt2.experiments.plan.choose import ME, Facts, Grid, Planned, Tokens
from nanogpt2.experiments.plan.figures import read_figures
from nanogpt2.experiments.plan.laws import Law, read_law
from nanogpt2.experiments.plan.pilot import PILOT, rehearse, run_pilot
from nanogpt2.experiments.plan.recipe import (
    BYTES_PER_TOKEN,
    VOCABULARIES,
    Choice,
    describe,
    make_values,
)
from nanogpt2.experiments.plan.timing import PARTS, SECONDS, Clock, Timing, time_steps
from nanogpt2.tokens.tokenizer import Tokenizer, train_tokenizer

Show = Callable[[str], object]

LEARNT_FROM = 2**23  # bytes of the training text, for a bpe
REHEARSED = 4  # times fewer steps than planned
LEAST_REHEARSED = 60  # steps
REHEARSING = 120.0  # seconds at most
MOST_REHEARSED = 2  # choices
TIMED = (  # besides the pilot's shape
    replace(PILOT, width=64, batch=32),
    replace(PILOT, width=256, layers=4, batch=8),
)
MOST_TIMED = 5  # choices after which the search for the best ends
EVALUATIONS = 5, 20  # at least, and at most
EVALUATING = 0.04  # of the time
LEAST_BATCHES, MOST_BATCHES = 4, 100  # of each split in an evaluation
SPARE_ROWS = 1.05  # of characters, for those of the text that was not read
CLOSE = 1.005  # to the loss that is asked for
LONGER = 1.1
WORTH = 0.01  # nats a character
LONGEST = 24 * 3600.0  # seconds that are looked at for a quality


@dataclass
class Planner:
    """What is known of the text and the machine, and how well each choice would do."""

    facts: Facts
    texts: tuple[str, str]  # of training and validation
    device: str
    start: float  # seconds until a process trains

    def __post_init__(self) -> None:
        self.law: Law = read_law()
        self.grid = Grid(self.facts)
        self.clock = Clock()
        self.timings: dict[tuple[int, ...], Timing] = {}
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
        most = max(int(REHEARSING / planned.step_seconds), LEAST_REHEARSED)
        steps = min(planned.choice.steps // REHEARSED, most)
        choice = replace(planned.choice, steps=steps)
        tokenizer = planned.tokens.tokenizer
        with phase("rehearsing", steps, "steps") as bar:
            (loss,), step_seconds = rehearse(
                choice,
                tokenizer,
                *self.texts,
                device=self.device,
                judged=(steps,),
                after_step=lambda _: bar.add(1),
            )
        self.law = self.law.given(self.columns(choice, planned.tokens), [loss], ME)
        self.clock.add(shape_of(choice, tokenizer), step_seconds)
        return loss

    def columns(self, choice: Choice, tokens: Tokens) -> dict[str, Any]:
        """Return what the law reads of a choice."""
        of_tokens = {"vocab_size": tokens.tokenizer.size, "train_tokens": tokens.train_tokens}
        return {**self.facts.columns, **vars(choice), **of_tokens}


def shape_of(choice: Choice, tokenizer: Tokenizer) -> dict[str, int]:
    """Return what of `choice` decides how long a step takes."""
    values = {**vars(choice), "vocab_size": tokenizer.size}
    return {part: values[part] for part in PARTS}


def plan(
    params: Path,
    *,
    seconds: float | None,
    loss: float | None,
    device: str | None,
    write: bool,
    show: Show,
) -> None:
    """Choose all that `params` says of the model and its training, and write it there.

    It trains for `seconds`, or for as few as the law says that `loss`, in nats a character, takes;
    `device` is where, that of `params` if None. ConfigError and DataError where that cannot be.
    """
    start = time.time() - psutil.Process().create_time()
    config = read_config(params)
    device = device or config.device
    texts = read_texts(config)
    with phase("reading the text"):
        facts = read_facts(*texts, device=device)
    show(describe_text(facts))
    planner = Planner(facts, texts, device, start)
    if seconds is None:
        assert loss is not None
        seconds = settle_seconds(planner, loss)
    show(describe_clock(planner))
    found = planner.best(seconds)
    rehearsed: list[Choice] = []
    while (
        len(rehearsed) < MOST_REHEARSED
        and (kind := replace(found.choice, steps=0)) not in rehearsed  # steps follow the clock
        and found.choice.steps >= REHEARSED * LEAST_REHEARSED
    ):
        reached = planner.rehearse(found)
        rehearsed.append(kind)
        show(f"the start of {describe(found.choice)}: {reached:.3f} nats a character")
        found = planner.best(seconds)
    for line in tell(planner, found, seconds):
        show(line)
    changes = make_changes(planner, found, seconds)
    done(f"a plan of {found.choice.steps:,} steps", to=params if write else None)
    if write:
        show("\n".join(set_values(params, changes)) or f"{params} has these values already")


def read_facts(train: str, val: str, *, device: str) -> Facts:
    """Return what the law asks of a text; the pilot is run on `device`."""
    tokens = [Tokens(train_tokenizer("char", [train, val], vocab_size=0), 0, len(train))]
    sizes = [size for size in VOCABULARIES if size * BYTES_PER_TOKEN < len(train)]
    try:
        import_extra("tiktoken", extra="bpe")  # which a run with a bpe asks for
        for tokenizer in train_bpes(train[:LEARNT_FROM], sizes):
            tokens.append(Tokens(tokenizer, tokenizer.size, count_tokens(tokenizer, train)))
    except ExtraError as error:
        say(f"warning: characters alone are planned with: {error}")
    if len(val) < PILOT.block:
        raise DataError(f"the validation text has {len(val)} characters: too few to plan by")
    return Facts(read_figures(train, val), run_pilot(train, val, device=device), tokens)


def count_tokens(tokenizer: Tokenizer, text: str) -> int:
    """Return the tokens of `text`, by those of its start."""
    start = text[:LEARNT_FROM]
    return round(len(tokenizer.encode(start)) * len(text) / len(start))


def find_seconds(planner: Planner, loss: float) -> float:
    """Return the least seconds in which the law says that `loss` is reached."""
    low, high = planner.start, LONGEST
    if (best := planner.grid.best(planner.law, planner.clock, high).loss) > loss:
        raise ConfigError(
            f"--quality: found {loss:g}; allowed: what can be reached: on this text and machine"
            f" {best:.3f} nats a character in 24 hours, by the law; give more text"
        )
    while high / low > 1.02:
        middle = (low * high) ** 0.5
        try:
            reached = planner.grid.best(planner.law, planner.clock, planner.left(middle)).loss
        except DataError:  # too little time for any model
            reached = float("inf")
        low, high = (low, middle) if reached <= loss else (middle, high)
    return high


def settle_seconds(planner: Planner, loss: float) -> float:
    """Return seconds in which `loss` is reached by a choice whose steps were timed.

    Timing it may show that it is slower than it was thought to be.
    """
    seconds = find_seconds(planner, loss)
    while seconds < LONGEST:
        with suppress(DataError):  # too little time, as it turns out
            if planner.best(seconds).loss <= loss * CLOSE:
                break
        seconds *= LONGER
    return seconds


def make_changes(planner: Planner, found: Planned, seconds: float) -> dict[str, Any]:
    """Return the values of params.yaml that make up a plan."""
    tokenizer, choice = found.tokens.tokenizer, found.choice
    forward = planner.time(choice, tokenizer).forward
    batches = EVALUATING * seconds / (2 * forward)  # of each split, in all evaluations together
    evaluations = min(max(int(batches / LEAST_BATCHES), EVALUATIONS[0]), EVALUATIONS[1])
    interval = max(choice.steps // evaluations, 1)
    rows = tokenizer.size if found.tokens.bpe else max(round(tokenizer.size * SPARE_ROWS), 256)
    return {
        **make_values(choice),
        "tokenizer": "bpe" if found.tokens.bpe else "char",
        "vocab_size": rows,
        "eval_interval": interval,
        "eval_iters": min(max(int(batches / evaluations), LEAST_BATCHES), MOST_BATCHES),
        "checkpoint_interval": interval,
    }


# --- In words ---


def describe_text(facts: Facts) -> str:
    """Return what was found of the text."""
    figures = facts.figures
    losses = ", ".join(f"{loss:.2f}" for loss in facts.pilot)
    return (
        f"text: {figures['characters']:,} characters to train on, {figures['kinds']} different"
        f" ones; a model of the last four loses {figures['order_4']:.2f} nats a character, a small"
        f" transformer {losses} after 75, 150 and 300 steps"
    )


def describe_clock(planner: Planner) -> str:
    """Return how quick the machine is."""
    timing = planner.time(PILOT, planner.facts.tokens[0].tokenizer)
    speed = PILOT.tokens / timing.step
    return (
        f"machine: {speed:,.0f} tokens a second, trained by {PILOT.layers} layers of {PILOT.width}"
    )


def tell(planner: Planner, found: Planned, seconds: float) -> Iterator[str]:
    """Yield what is planned, what is predicted, and why."""
    timing = planner.time(found.choice, found.tokens.tokenizer)
    yield f"plan: {describe(found.choice)}"
    yield (
        f"predicted: {describe_loss(found)}, {seconds / 60:.1f} minutes of training"
        f" ({1000 * found.step_seconds:.1f} ms a step), {timing.memory / 1e9:.1f} GB of memory"
    )
    if not planner.law.reaches(planner.columns(found.choice, found.tokens)).all():
        yield "the law was not fitted to runs like this one: take its loss as a guess"
    for what, other in alternatives(planner, found, seconds):
        yield f"  {what}: {other.loss:.3f} ({other.loss - found.loss:+.3f})"
    yield from tell_what_is_missing(planner, found, seconds)


def describe_loss(found: Planned) -> str:
    """Return the predicted loss in words."""
    sure = found.loss * found.spread
    return f"validation loss {found.loss:.3f} +- {sure:.3f} nats a character"


def alternatives(planner: Planner, found: Planned, seconds: float) -> Iterator[tuple[str, Planned]]:
    """Yield other choices for the same time, each the best of its kind."""
    columns, choice = planner.grid.columns, found.choice
    sizes = columns["layers"] * columns["width"] ** 2
    size = choice.layers * choice.width**2
    kinds = [
        ("a smaller model", sizes < 0.7 * size),
        ("a larger one", sizes > 1.4 * size),
        ("characters", columns["bpe"] == 0) if choice.bpe else ("a bpe", columns["bpe"] > 0),
        ("without dropout", columns["dropout"] == 0)
        if choice.dropout
        else ("with dropout", columns["dropout"] > 0),
    ]
    for what, where in kinds:
        try:
            other = planner.grid.best(
                planner.law, planner.clock, planner.left(seconds), where=where
            )
        except DataError:  # there is none
            continue
        yield f"{what}, {describe(other.choice)}", other


def tell_what_is_missing(planner: Planner, found: Planned, seconds: float) -> Iterator[str]:
    """Yield what twice the time and twice the text would give."""
    longer = planner.grid.best(planner.law, planner.clock, planner.left(2 * seconds))
    more = Grid(planner.facts.twice()).best(planner.law, planner.clock, planner.left(seconds))
    gains = [max(found.loss - other.loss, 0.0) for other in (longer, more)]
    yield f"  twice the minutes: {found.loss - gains[0]:.3f} ({-gains[0]:+.3f})"
    yield f"  twice the text: {found.loss - gains[1]:.3f} ({-gains[1]:+.3f})"
    if gains[1] > max(2 * gains[0], WORTH):
        yield "more text is what is missing, not more time or a larger model"
