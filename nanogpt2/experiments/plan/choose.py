"""The choice: of all shapes the one that the law says is best in the time there is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from nanogpt2.base.system.errors import DataError
from nanogpt2.experiments.plan.laws import PILOT, Law
from nanogpt2.experiments.plan.recipe import (
    BLOCKS,
    DROPOUTS,
    LEAST_BATCH,
    LEAST_STEPS,
    SIZES,
    TOKENS,
    Choice,
)
from nanogpt2.experiments.plan.timing import Clock
from nanogpt2.tokens.tokenizer import Tokenizer

CAUTION = 0.5  # standard deviations by which a choice must be better to be taken
STEPPING = 0.94  # of the time; the rest goes into evaluations and states
ME = "this text"


@dataclass(frozen=True)
class Tokens:
    """A tokenizer made for the text, and how many tokens the training text has in it."""

    tokenizer: Tokenizer
    bpe: int  # 0: characters
    train_tokens: int


@dataclass(frozen=True)
class Facts:
    """What a plan knows of the text."""

    figures: dict[str, float]
    pilot: Sequence[float]
    tokens: Sequence[Tokens]

    @cached_property
    def columns(self) -> dict[str, float]:
        """What is the same for all choices."""
        return {**self.figures, **dict(zip(PILOT, self.pilot, strict=True))}

    def twice(self) -> "Facts":
        """Return the facts as they would be of twice as much text of the same kind.

        Four times less of it raised the loss of order_4 to that of fewer_4: twice as much lowers
        it by half of that again.
        """
        figures = dict(self.figures)
        gain = (figures["order_4"] / figures["fewer_4"]) ** 0.5
        for name in ("order_4", "order_6", "fewer_4"):
            figures[name] *= gain
        figures["characters"] *= 2
        tokens = [replace(each, train_tokens=2 * each.train_tokens) for each in self.tokens]
        return Facts(figures, self.pilot, tokens)


@dataclass(frozen=True)
class Planned:
    """A choice, and what the law and the clock say of it."""

    choice: Choice
    tokens: Tokens
    loss: float  # nats a character
    spread: float  # of the loss, as a share of it: one standard deviation
    step_seconds: float


class Grid:
    """All choices that there are for a text, as columns."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        rows = [
            (number, tokens.bpe, width, layers, block, batch, dropout)
            for number, tokens in enumerate(facts.tokens)
            for (layers, width), block, of_step, dropout in product(SIZES, BLOCKS, TOKENS, DROPOUTS)
            if (batch := of_step // block) >= LEAST_BATCH and block < tokens.train_tokens // 8
        ]
        names = ("number", "bpe", "width", "layers", "block", "batch", "dropout")
        self.columns: dict[str, Any] = dict(zip(names, np.array(rows).T, strict=True))
        number = self.columns["number"].astype(int)
        for name, values in (
            ("train_tokens", [each.train_tokens for each in facts.tokens]),
            ("vocab_size", [each.tokenizer.size for each in facts.tokens]),
        ):
            self.columns[name] = np.array(values)[number]
        self.columns |= facts.columns

    def best(
        self, law: Law, clock: Clock, seconds: float, *, where: npt.NDArray[np.bool_] | None = None
    ) -> Planned:
        """Return the best choice that trains for `seconds`; of those `where` is true, if given.

        DataError where there is none: too little time for the smallest model.
        """
        step_seconds = clock.predict(self.columns)
        columns = {**self.columns, "steps": seconds * STEPPING / step_seconds}
        fits = columns["steps"] >= LEAST_STEPS
        if where is not None:
            fits &= where
        if not fits.any():
            raise DataError(
                f"{seconds:.0f} seconds are too few for {LEAST_STEPS} steps of any model: give more"
            )
        known = fits & law.reaches(columns)
        chosen = np.flatnonzero(known if known.any() else fits)
        part = {
            name: value[chosen] if isinstance(value, np.ndarray) else value
            for name, value in columns.items()
        }
        losses, spreads = law.predict(part, ME)
        at = int(np.argmin(losses * (1 + CAUTION * spreads)))
        values = {n: v[at] for n, v in part.items() if isinstance(v, np.ndarray)}
        whole = ("bpe", "width", "layers", "block", "batch", "steps")
        choice = Choice(
            **{name: int(values[name]) for name in whole}, dropout=float(values["dropout"])
        )
        tokens = self.facts.tokens[int(values["number"])]
        step = float(step_seconds[chosen[at]])
        return Planned(choice, tokens, float(losses[at]), float(spreads[at]), step)
