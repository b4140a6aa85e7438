"""Losses watched: the loss and gradient of each step, and what is not as it should be."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nanogpt2.base.system.errors import TrainingError

SPIKE_WINDOW = 100  # steps
SPIKE_SPREADS = 8.0  # standard deviations above the recent mean
UNREAD_REPORTS = 32  # steps that a GPU may run ahead of the look at their losses


@dataclass(frozen=True)
class StepReport:
    """What a step found: its number, learning rate, and (loss, gradient norm) on the device."""

    step: int
    learning_rate: float
    figures: Tensor  # (2,) float32


class LossWatch:
    """Watches each step's loss and gradient; `say` receives warnings.

    `on_nonfinite` is stop or skip: what to do where one is not finite. With `scales`, float16's, a
    gradient that is not finite while the loss is only halves the loss's scale. A GPU's reports are
    looked at up to `lag` steps later, so that it need not wait.
    """

    def __init__(
        self, on_nonfinite: str, *, say: Callable[[str], None], lag: int = 1, scales: bool = False
    ) -> None:
        self.on_nonfinite = on_nonfinite
        self.say = say
        self.lag = lag
        self.scales = scales
        self.unread: list[StepReport] = []
        self.recent: deque[float] = deque(maxlen=SPIKE_WINDOW)
        self.skipped = 0

    def take(self, report: StepReport) -> None:
        """Keep a step's report, and look at those kept where it is time."""
        self.unread.append(report)
        if len(self.unread) >= self.lag:
            self.read()

    def read(self) -> None:
        """Look at all reports kept; TrainingError at one not finite, where those stop."""
        reports, self.unread = self.unread, []
        if not reports:
            return
        figures = torch.stack([report.figures for report in reports]).tolist()
        for report, (loss, norm) in zip(reports, figures, strict=True):
            if not (self.scales and math.isfinite(loss) and not math.isfinite(norm)):
                self._see(report, loss, norm)

    def _see(self, report: StepReport, loss: float, norm: float) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            self._look_for_spike(report.step, loss)
            return
        found = (
            f"iteration {report.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}"
            f" at learning rate {report.learning_rate:.3g}"
        )
        advice = "try a lower learning_rate, a longer warmup_iters, or mixed_precision: false"
        if self.on_nonfinite == "stop":
            raise TrainingError(f"{found}: not finite, training stopped; {advice}")
        self.skipped += 1
        if self.skipped == 1:
            self.say(f"warning: {found}: not finite, step skipped; {advice}")

    def _look_for_spike(self, step: int, loss: float) -> None:
        count = max(len(self.recent), 1)
        mean = sum(self.recent) / count
        spread = math.sqrt(sum((x - mean) ** 2 for x in self.recent) / count)
        high = loss > mean + SPIKE_SPREADS * spread and loss > 1.2 * mean
        if len(self.recent) == SPIKE_WINDOW and high:
            self.recent.clear()  # the next warning needs a new calm stretch
            self.say(
                f"warning: iteration {step + 1}: loss {loss:.4f} is far above its recent"
                f" {mean:.4f}; if it does not come back, lower learning_rate or grad_clip"
            )
        self.recent.append(loss)
