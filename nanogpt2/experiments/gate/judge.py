"""The figures of two runs side by side: which are worse by more than is allowed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nanogpt2.base.system.errors import DataError
from nanogpt2.experiments.gate.noise import HOW, Noise
from nanogpt2.experiments.gate.thresholds import NOISE, Threshold
from nanogpt2.experiments.proof.record import look_up

PER_TOKEN = {"loss": "bits_per_byte"}  # of a split, and what serves where tokens differ
OF_A_SPLIT = ("loss", "perplexity", "bits_per_byte", "accuracy")
STRIDE, BLOCK = "evaluate.stride", "block_size"


@dataclass(frozen=True)
class Side:
    """One of two runs: its metrics files, and params.yaml."""

    metrics: Mapping[str, Any]  # {file: content}
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One figure, and what came of its comparison; what is None is not known."""

    name: str
    base: float | None
    head: float | None
    allowed: float | None  # how much worse it may be
    verdict: str
    fails: bool = False

    @property
    def difference(self) -> float | None:
        """Return the head's figure less the base's."""
        return None if self.base is None or self.head is None else self.head - self.base


def judge_figure(
    threshold: Threshold,
    base: Side,
    head: Side,
    *,
    noise: Callable[[], Noise],
    chance: float,
    accepts: bool,
) -> Row:
    """Return the row of one figure.

    `noise` reads what was measured, where it is asked for; `chance` is how often noise alone may
    fail this figure; `accepts` says whether its acceptance counts. Raises DataError where the noise
    does not tell what is allowed.
    """
    key, name = threshold.key, threshold.name
    before, now = (find_figure(side, threshold.file, key) for side in (base, head))
    if now is None:
        return Row(name, before, now, None, f"missing in {threshold.file}", fails=True)
    if before is None:
        return Row(name, before, now, None, "new: nothing to compare with")
    accepted = _acceptance(threshold, now) if accepts else ""
    other = why_not_comparable(threshold, base, head)
    if other == "other tokens" and (serving := PER_TOKEN.get(_last(key))):
        allowed = find_allowance(threshold, before, noise, base, chance)
        bits = f"{key.rpartition('.')[0]}.{serving}"
        before_bits, now_bits = (find_figure(each, threshold.file, bits) for each in (base, head))
        if before_bits is not None and now_bits is not None and before:
            # nats per token to bits per byte, as the base's tokens have it
            name, allowed = f"{name} as {serving}", allowed * before_bits / before
            return _decide(threshold, name, before_bits, now_bits, allowed, accepted)
    if other:
        why = f"not comparable: {other}"
        verdict = f"{why}; {accepted}" if accepted else why
        return Row(name, before, now, None, verdict, fails=not accepted)
    if before == now:
        return Row(name, before, now, None, "the same")
    allowed = find_allowance(threshold, before, noise, base, chance)
    return _decide(threshold, name, before, now, allowed, accepted)


def find_figure(side: Side, file: str, key: str) -> float | None:
    """Return the figure at `key`, such as val.loss; None where there is none that is finite."""
    found = look_up(side.metrics.get(file), key)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return float(found)


def find_allowance(
    threshold: Threshold, before: float, noise: Callable[[], Noise], base: Side, chance: float
) -> float:
    """Return how much worse than the figure `before` the next may be.

    DataError where it is to be measured, and was not, or on another text than the base's.
    """
    allowed = threshold.allowed
    if isinstance(allowed, int | float):
        return float(allowed)
    if allowed != NOISE:
        return abs(before) * float(allowed.rstrip("%")) / 100
    measured, key = noise(), f"{_split(threshold.key)}.text"
    text = look_up(base.metrics.get(threshold.file), key)
    if text is not None and set(measured.values(threshold.file, key)) != {text}:
        raise DataError(
            f"{measured.path}: its {threshold.name} is of another text than the base's: {HOW}"
        )
    return measured.allowance(threshold.file, threshold.key, chance)


def why_not_comparable(threshold: Threshold, base: Side, head: Side) -> str:
    """Return why two figures of a held-out split say nothing beside each other; "" if they do.

    They are of other texts, of other tokens, or of other parts of the same.
    """
    split = _split(threshold.key)
    before, now = (look_up(side.metrics.get(threshold.file), split) for side in (base, head))
    rows = (before, now)
    if _last(threshold.key) not in OF_A_SPLIT or not all(
        isinstance(row, Mapping) and "text" in row and "tokens" in row for row in rows
    ):
        return ""
    if before["text"] != now["text"]:
        return "another held-out text"
    whole = [row.get("of_tokens", row["tokens"]) for row in rows]
    partly = any("of_tokens" in row for row in rows)
    if whole[0] == whole[1] and before["tokens"] != now["tokens"]:
        return "another evaluate.max_tokens"
    if partly and (whole[0] != whole[1] or _differs(BLOCK, base, head)):
        return "other parts of the text (evaluate.max_tokens)"
    if _differs(STRIDE, base, head):
        return f"another {STRIDE}"
    if whole[0] != whole[1]:
        return "" if _last(threshold.key) == "bits_per_byte" else "other tokens"
    return ""


def _decide(
    threshold: Threshold, name: str, before: float, now: float, allowed: float, accepted: str
) -> Row:
    """Return the row of two figures; `accepted` says why a worse one is taken, if it is."""
    worse = now - before if threshold.lower_is_better else before - now
    if worse > allowed:
        return Row(name, before, now, allowed, accepted or "WORSE", fails=not accepted)
    return Row(name, before, now, allowed, "better" if worse < -allowed else "no worse")


def _acceptance(threshold: Threshold, figure: float) -> str:
    """Return in words that `figure` is taken on purpose, and why; "" where it is not."""
    accept = threshold.accept
    if accept is None:
        return ""
    within = figure <= accept.figure if threshold.lower_is_better else figure >= accept.figure
    return f"accepted: {accept.because}" if within else ""


def _differs(key: str, base: Side, head: Side) -> bool:
    return bool(look_up(base.parameters, key) != look_up(head.parameters, key))


def _split(key: str) -> str:
    return key.rpartition(".")[0]


def _last(key: str) -> str:
    return key.rpartition(".")[2]
