"""A phase of long work: what it is, how much of it is done, and how long it takes yet."""

import time
from collections.abc import Callable

from nanogpt2.base.system.words import (
    describe_amount,
    describe_seconds,
    describe_time,
    describe_work,
)


class Phase:
    """What is being done, and how much of it in `unit` (B: bytes), where it can be measured.

    `of` is all of it, if that is known. It begins with so much `done`; `changed` is called when
    there is more, or `measure` tells how much there is.
    """

    def __init__(
        self,
        what: str,
        of: int = 0,
        unit: str = "",
        *,
        done: int = 0,
        changed: Callable[[], None] = lambda: None,
        measure: Callable[[], int] | None = None,
    ) -> None:
        self.what, self.of, self.unit = what, of, unit
        self.changed, self.measure = changed, measure
        self.first = self.done = done
        self.began = time.perf_counter()

    def add(self, amount: int) -> None:
        """Count what was done now."""
        self.reach(self.done + amount)

    def reach(self, done: int) -> None:
        """Tell how much is done in all."""
        self.done = done
        self.changed()

    def look(self) -> None:
        """Measure anew how much is done."""
        if self.measure is not None:
            self.done = self.measure()

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
        self.look()
        since = describe_seconds(self.seconds)
        if not self.done:
            return f"{self.what} for {since}"
        if not self.of:
            return f"{self.what}: {describe_amount(self.done, self.unit)} in {since}"
        left = f", {describe_seconds(self.seconds_left)} left" if self.done > self.first else ""
        whole = describe_amount(self.of, self.unit)
        return f"{self.what}: {self.done / self.of:.0%} of {whole}{left}"

    def describe_end(self) -> str:
        """Return in words what it came to."""
        self.look()
        if not self.done:
            return f"{self.what}: {describe_time(self.seconds)}"
        return f"{self.what}: {describe_work(self.done - self.first, self.unit, self.seconds)}"

    def meter(self, width: int, *, ascii_only: bool) -> str:
        """Return it as a bar of `width` columns."""
        self.look()
        if not self.unit:
            return f"{self.what}, {self.seconds:.0f} s" if self.seconds >= 1 else self.what
        from tqdm import tqdm  # 20 ms, and only where there is something to show

        return tqdm.format_meter(
            self.done,
            self.of or None,  # type: ignore[arg-type]  # what tqdm takes for unknown
            self.seconds,
            ncols=width,
            prefix=self.what,
            ascii=ascii_only,
            unit=self.unit if self.unit == "B" else f" {self.unit}",
            unit_scale=self.unit == "B" or self.of >= 10_000,
            initial=self.first,
        )
