"""The plan: figures of the text, a pilot on it, steps that are timed, and then the choice.

The shape that the law takes for the best is timed, which may make another one the best, until none
is left; what is chosen is then rehearsed, with a quarter of its steps, and what that gives corrects
the law, which may make another one the best. Half of the steps then tell how the run will end.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from nanogpt2.base.screen.screen import done, phase, say
from nanogpt2.base.system.errors import ConfigError, DataError, ExtraError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.config.config import set_values
from nanogpt2.experiments.candidates import read_config, read_texts, train_bpes
from nanogpt2.experiments.plan.choose import Facts, Planned, Tokens
from nanogpt2.experiments.plan.figures import read_figures
from nanogpt2.experiments.plan.pilot import PILOT, run_pilot
from nanogpt2.experiments.plan.planner import LEAST_REHEARSED, REHEARSED, Planner, kind_of
from nanogpt2.experiments.plan.recipe import (
    BYTES_PER_TOKEN,
    VOCABULARIES,
    describe,
    make_values,
)
from nanogpt2.experiments.plan.words import describe_clock, describe_text, tell
from nanogpt2.tokens.tokenizer import Tokenizer, train_tokenizer

Show = Callable[[str], object]

LEARNT_FROM = 2**23  # bytes of the training text, for a bpe
MOST_REHEARSED = 2  # choices
EVALUATIONS = 5, 20  # at least, and at most
EVALUATING = 0.04  # of the time
LEAST_BATCHES, MOST_BATCHES = 4, 100  # of each split in an evaluation
SPARE_ROWS = 1.05  # of characters, for those of the text that was not read
CLOSE = 1.005  # to the loss that is asked for
LONGER = 1.1
LONGEST = 24 * 3600.0  # seconds that are looked at for a quality


def plan(
    params: Path,
    *,
    seconds: float | None,
    loss: float | None,
    device: str | None,
    rehearsing: float,
    write: bool,
    show: Show,
) -> None:
    """Choose all that `params` says of the model and its training, and write it there.

    It trains for `seconds`, or for as few as the law says that `loss`, in nats a character, takes;
    `device` is where, that of `params` if None; a rehearsal takes `rehearsing` seconds at most.
    ConfigError and DataError where that cannot be.
    """
    start = time.time() - psutil.Process().create_time()
    config = read_config(params)
    device = device or config.device
    texts = read_texts(config)
    with phase("reading the text"):
        facts = read_facts(*texts, device=device)
    show(describe_text(facts))
    planner = Planner(facts, texts, device, start, rehearsing)
    if seconds is None:
        assert loss is not None
        seconds = settle_seconds(planner, loss)
    show(describe_clock(planner))
    found = planner.best(seconds)
    while (
        len(planner.starts) < MOST_REHEARSED
        and kind_of(found.choice) not in planner.starts
        and found.choice.steps >= REHEARSED * LEAST_REHEARSED
    ):
        reached = planner.rehearse(found)
        show(f"the start of {describe(found.choice)}: {reached:.3f} nats a character")
        found = planner.best(seconds)
    found, half = planner.finish(found, seconds)
    if half:
        show(
            f"half of its steps: {half.loss:.3f} nats a character, {half.own:.3f} on the text that"
            " it trains on"
        )
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
