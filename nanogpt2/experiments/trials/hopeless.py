"""When a trial is hopeless: the median rule of Google Vizier (Golovin et al. 2017, section 3.2.2).

At an evaluation of step s a trial is stopped where its lowest validation loss so far is above the
median of what the others had reached by the same s.
"""

import statistics
from collections.abc import Sequence

from nanogpt2.experiments.trials.trial import Trial

WARM_UP = 1 / 3  # of its steps, in which no trial is stopped
LEAST = 4  # others that have come as far

RULE = (
    "stops what is hopeless: after a third of its steps, a trial whose lowest validation loss is"
    f" above the median of at least {LEAST} others at the same step, of the same text and tokens"
)


def is_hopeless(trial: Trial, others: Sequence[Trial]) -> bool:
    """Return whether the rule stops `trial` at its last evaluation."""
    step = trial.step
    if trial.best is None or step < WARM_UP * trial.of or step >= trial.of:
        return False
    reached = [
        min(loss for at, loss in other.losses.items() if at <= step)
        for other in others
        if other is not trial and other.data_key == trial.data_key and step in other.losses
    ]
    return len(reached) >= LEAST and trial.best > statistics.median(reached)
