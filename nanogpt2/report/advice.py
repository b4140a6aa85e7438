"""Advice: what training can see going wrong, said once each, in one line."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nanogpt2.base.errors import TrainingError

SPIKE_WINDOW = 100  # steps
SPIKE_SPREADS = 8.0  # standard deviations above the recent mean
SLOW_SECONDS = 2 * 3600.0


@dataclass
class LossWatch:
    """Watches the loss and gradient of each step.

    `on_nonfinite` is stop or skip: what to do at a loss or gradient that is not finite.
    """

    on_nonfinite: str
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=SPIKE_WINDOW))
    skipped: int = 0

    def see(self, step: int, rate: float, loss: float, norm: float) -> str | None:
        """Return a warning, or None; TrainingError at a non-finite step, where those stop."""
        if math.isfinite(loss) and math.isfinite(norm):
            return self._spike(step, loss)
        found = (
            f"iteration {step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}"
            f" at learning rate {rate:.3g}"
        )
        advice = "try a lower learning_rate, a longer warmup_iters, or mixed_precision: false"
        if self.on_nonfinite == "stop":
            raise TrainingError(f"{found}: not finite, training stopped; {advice}")
        self.skipped += 1
        return (
            f"warning: {found}: not finite, step skipped; {advice}" if self.skipped == 1 else None
        )

    def _spike(self, step: int, loss: float) -> str | None:
        mean = sum(self.recent) / max(len(self.recent), 1)
        spread = math.sqrt(sum((x - mean) ** 2 for x in self.recent) / max(len(self.recent), 1))
        is_spike = (
            len(self.recent) == SPIKE_WINDOW
            and loss > mean + SPIKE_SPREADS * spread
            and loss > 1.2 * mean
        )
        if is_spike:
            self.recent.clear()  # the next warning needs a new calm stretch
        self.recent.append(loss)
        return (
            f"warning: iteration {step + 1}: loss {loss:.4f} is far above its recent {mean:.4f};"
            " if it does not come back, lower learning_rate or grad_clip"
            if is_spike
            else None
        )


def advise(
    history: Sequence[Mapping[str, float]],
    *,
    vocab_size: int,
    seconds_left: float,
    device: str,
    mixed_precision: bool,
) -> dict[str, str]:
    """Return the advice that the evaluations so far call for, by topic."""
    found = {
        "over-fitting": over_fitting(history),
        "not learning": not_learning(history, vocab_size),
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
