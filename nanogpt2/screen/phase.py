"""A phase of long work: what it is, how much of it is done, and how long it takes yet."""

import time
from collections.abc import Callable

from nanogpt2.base.words import describe_amount, describe_seconds, describe_time, describe_work


class Phase:
    """What is being done; where it can be measured, `of` how much in `unit` (B: bytes).

    It begins with so much `done`; `changed` is called when there is more.
    """

    def __init__(
        self,
        what: str,
        of: int = 0,
        unit: str = "",
        *,
        done: int = 0,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.what, self.of, self.unit, self.changed = what, of, unit, changed
        self.first = self.done = done
        self.began = time.perf_counter()

    def add(self, amount: int) -> None:
        """Count what was done now."""
        self.reach(self.done + amount)

    def reach(self, done: int) -> None:
        """Tell how much is done in all."""
        self.done = done
        self.changed()

    @property
    def seconds(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self.began

    @property
    def seconds_left(self) -> float:
        """Seconds that it takes yet, at its mean speed so far."""
        return self.seconds / max(self.done - self.first, 1) * (self.of - self.done)

    def describe(self) -> str:
        """Return in words how it stands."""
        if not self.of:
            return f"{self.what} for {describe_seconds(self.seconds)}"
        left = f", {describe_seconds(self.seconds_left)} left" if self.done > self.first else ""
        whole = describe_amount(self.of, self.unit)
        return f"{self.what}: {self.done / self.of:.0%} of {whole}{left}"

    def describe_end(self) -> str:
        """Return in words what it came to."""
        if not self.of:
            return f"{self.what}: {describe_time(self.seconds)}"
        return f"{self.what}: {describe_work(self.done - self.first, self.unit, self.seconds)}"

    def meter(self, width: int, *, ascii_only: bool) -> str:
        """Return it as a bar of `width` columns."""
        if not self.of:
            return f"{self.what}, {self.seconds:.0f} s" if self.seconds >= 1 else self.what
        from tqdm import tqdm  # 20 ms, and only where there is something to show

        return tqdm.format_meter(
            self.done,
            self.of,
            self.seconds,
            ncols=width,
            prefix=self.what,
            ascii=ascii_only,
            unit=self.unit if self.unit == "B" else f" {self.unit}",
            unit_scale=self.of >= 10_000,
            initial=self.first,
        )
