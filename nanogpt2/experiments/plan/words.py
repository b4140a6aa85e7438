"""A plan in words: what was found, what is planned, what to expect of it, and why."""

from collections.abc import Iterator

from nanogpt2.base.system.errors import DataError
from nanogpt2.experiments.plan.choose import Facts, Grid, Planned
from nanogpt2.experiments.plan.pilot import PILOT
from nanogpt2.experiments.plan.planner import Planner
from nanogpt2.experiments.plan.recipe import describe

WORTH = 0.01  # nats a character


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
