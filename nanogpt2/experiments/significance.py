"""Significance: are two settings different, or do their runs differ by their seeds alone?

Student's paired t test. The distribution is Abramowitz and Stegun 1964, 26.7.3 and 26.7.4: finite
sums, exact for whole degrees of freedom.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.99  # of 100 comparisons of a setting with itself, one is called different


@dataclass(frozen=True)
class Comparison:
    """First minus second, paired by seed; the interval holds the true mean with 99% confidence."""

    differences: list[float]
    mean: float
    low: float
    high: float
    p_value: float  # how often chance alone gives a mean as far from 0

    @property
    def verdict(self) -> str:
        """Return what the first is against the second, where lower figures are better."""
        return self.judge(self.p_value)

    def judge(self, p_value: float) -> str:
        """Return the verdict by another p-value, such as one that is corrected."""
        if p_value >= 1 - CONFIDENCE:
            return "no difference shown"
        return "better" if self.mean < 0 else "worse"


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compare figures of two settings, such as losses, where the i-th of each have the same seed.

    Raises ValueError for fewer than 2 pairs, which have no spread.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    if len(differences) < 2:
        raise ValueError("a comparison needs at least 2 pairs")
    freedom = len(differences) - 1
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    margin = error * t_quantile(CONFIDENCE, freedom)
    p_value = 1 - t_probability(_ratio(abs(mean), error), freedom)
    return Comparison(differences, mean, mean - margin, mean + margin, p_value)


def _ratio(mean: float, error: float) -> float:
    """Return how many errors the mean is from 0; runs that agree to the last digit have none."""
    if error == 0:
        return math.inf if mean else 0.0
    return mean / error


def t_probability(t: float, freedom: int) -> float:
    """Return P(-t < T < t) for Student's T with `freedom` degrees of freedom; t is at least 0."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    for k in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    if not odd:
        return sine * total
    return 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))


def t_quantile(probability: float, freedom: int) -> float:
    """Return the t with P(-t < T < t) = `probability`, found by halving."""
    low, high = 0.0, 1.0
    while t_probability(high, freedom) < probability:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if t_probability(middle, freedom) < probability else (low, middle)
        )
    return (low + high) / 2


def correct(p_values: Sequence[float]) -> list[float]:
    """Return p-values of several comparisons, corrected for their number after Holm (1979).

    Where none of the settings differs, the lowest is below a bound only as often as the bound says,
    however the comparisons hang together, as they do through the runs that all are compared with.
    """
    count = len(p_values)
    corrected, lowest = [1.0] * count, 0.0
    for rank, at in enumerate(sorted(range(count), key=lambda at: p_values[at])):
        lowest = max(lowest, min((count - rank) * p_values[at], 1.0))
        corrected[at] = lowest
    return corrected


# --- In words ---


def describe_runs(name: str, losses: Mapping[int, float]) -> str:
    """Return the loss of each seed, their mean and their standard deviation, in lines."""
    lines = [f"  seed {seed}: {loss:.4f}" for seed, loss in losses.items()]
    mean, spread = statistics.fmean(losses.values()), statistics.stdev(losses.values())
    digits = _digits([spread])
    return "\n".join(
        [name, *lines, f"  mean {mean:.{digits}f}, standard deviation {spread:.{digits}f}"]
    )


def describe_interval(losses: Sequence[float]) -> str:
    """Return between which bounds the mean over all seeds is, as these tell, in a line."""
    half = statistics.stdev(losses) / math.sqrt(len(losses))
    half *= t_quantile(CONFIDENCE, len(losses) - 1)
    low, high = (statistics.fmean(losses) + side * half for side in (-1, 1))
    return f"  {CONFIDENCE:.0%} interval of the mean {low:.4f} to {high:.4f}"


def describe(comparison: Comparison, first: str, second: str) -> str:
    """Return the differences by seed, their mean and what they show, in lines."""
    mean, low, high = comparison.mean, comparison.low, comparison.high
    digits = _digits([*comparison.differences, mean, low, high])
    return "\n".join(
        [
            f"{first}, minus {second}",
            f"  by seed: {', '.join(f'{each:+.{digits}f}' for each in comparison.differences)}",
            f"  mean {mean:+.{digits}f},"
            f" {CONFIDENCE:.0%} interval {low:+.{digits}f} to {high:+.{digits}f},"
            f" p = {show_p(comparison.p_value)} (paired t test, two-sided)",
            f"  verdict: {comparison.verdict}",
        ]
    )


def _digits(values: Sequence[float]) -> int:
    """Return how many digits after the point show each value that is not 0 as such: 4 to 6."""
    return next((n for n in (4, 5) if all(round(each, n) for each in values if each)), 6)


def show_p(p_value: float) -> str:
    """Return `p_value` to two digits, or more where two would read as the bound itself."""
    bound = f"{1 - CONFIDENCE:.2g}"
    shown = (f"{p_value:.{digits}g}" for digits in range(2, 9))
    return next((text for text in shown if text != bound), bound)
