"""Advice: what training can see going wrong, said once each, in one line."""

import math
from collections.abc import Mapping, Sequence

from nanogpt2.report.recorded import RecordedRun, val_loss_at

SLOW_SECONDS = 2 * 3600.0
STEEP = 0.035  # of the loss, over the last quarter of the steps; 1600 of nano's bring 0.026
FAR_BEHIND = 1.15  # times the recorded run's loss


def advise(
    history: Sequence[Mapping[str, float]],
    *,
    vocab_size: int,
    max_iters: int,
    recorded: RecordedRun | None,
    seconds_left: float,
    device: str,
    mixed_precision: bool,
) -> dict[str, str]:
    """Return the advice that the evaluations so far call for, by topic."""
    found = {
        "over-fitting": over_fitting(history),
        "not learning": not_learning(history, vocab_size),
        "steep": steep(history, max_iters),
        "behind": behind(history, recorded, max_iters),
        "slow": slow(seconds_left, device=device, mixed_precision=mixed_precision),
    }
    return {topic: line for topic, line in found.items() if line}


def over_fitting(history: Sequence[Mapping[str, float]]) -> str | None:
    """Advise where three evaluations in a row were worse on val while the training loss fell."""
    best = min(history, key=lambda row: row["val_loss"])
    since = [row for row in history if row["iter"] > best["iter"]]
    rises = len(since) >= 3 and all(
        row["val_loss"] > 1.005 * best["val_loss"] for row in since[-3:]
    )
    if not rises or since[-1]["train_loss"] >= best["train_loss"]:
        return None
    return (
        f"advice: over-fitting: val loss was best at iteration {best['iter']:.0f}"
        f" ({best['val_loss']:.4f}, kept as best_model.pt) and rises while train loss falls;"
        " try more text, more dropout, fewer max_iters or a smaller model"
    )


def not_learning(history: Sequence[Mapping[str, float]], vocab_size: int) -> str | None:
    """Advise where three evaluations brought nothing, and the loss is still near a guess."""
    if len(history) < 3:
        return None
    losses = [row["train_loss"] for row in history[-3:]]
    stuck = losses[0] - min(losses[1:]) < 0.01 * losses[0]
    if not stuck or min(losses) < 0.6 * math.log(vocab_size):
        return None
    return (
        "advice: the loss does not fall: check that the text is what you meant"
        " (data/prepared/dataset.json), then try a lower learning_rate (1e-3), or more max_iters"
    )


def steep(history: Sequence[Mapping[str, float]], max_iters: int) -> str | None:
    """Advise at the end of a run where its last quarter still brought much."""
    last = history[-1]
    before = val_loss_at(history, 0.75 * max_iters)
    if last["iter"] != max_iters or before is None:
        return None
    fall = before - last["val_loss"]
    if fall < STEEP * last["val_loss"]:
        return None
    return (
        f"advice: val loss still falls steeply at the end, by {fall:.2f} in the last quarter of the"
        " steps: try more max_iters, or a higher learning_rate"
    )


def behind(
    history: Sequence[Mapping[str, float]], recorded: RecordedRun | None, max_iters: int
) -> str | None:
    """Advise where the recorded run was far better after as many steps; in a run's second half."""
    step, loss = history[-1]["iter"], history[-1]["val_loss"]
    then = val_loss_at(recorded.history, step) if recorded and step >= max_iters / 2 else None
    if recorded is None or then is None or loss < FAR_BEHIND * then:
        return None
    changes = f" Changed since: {recorded.changes}." if recorded.changes else ""
    return (
        f"advice: far behind the recorded run: val loss {loss:.4f} at iteration {step:.0f}, where"
        f" that one had {then:.4f}.{changes} Try one change at a time, or the"
        " recorded values"
    )


def slow(seconds_left: float, *, device: str, mixed_precision: bool) -> str | None:
    """Advise where hours are left and the machine could be used better."""
    if seconds_left < SLOW_SECONDS:
        return None
    hours = f"advice: about {seconds_left / 3600:.0f} hours are left"
    if device == "cpu":
        return f"{hours} on the CPU: use a GPU, a smaller preset, block_size or batch_size"
    if not mixed_precision:
        return f"{hours}: mixed_precision: true is faster on this device"
    return None
