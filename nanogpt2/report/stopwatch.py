"""A stopwatch: how long each part of a run takes."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

PARTS = ("start-up", "data", "step", "evaluation", "saving", "other")

T = TypeVar("T")


class Stopwatch:
    """Counts each second for one of PARTS: the innermost that is being measured.

    It runs in `start-up`, from `began` (of `time.perf_counter`) or now on, until `start`; from
    then on what is not measured is `other`. It looks at the clock alone, never at a device.
    """

    def __init__(self, began: float | None = None) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.part = "start-up"
        self.since = time.perf_counter() if began is None else began

    @classmethod
    def of_process(cls) -> "Stopwatch":
        """Return a stopwatch that has run since this process began."""
        import psutil  # only commands need it: a process with a notebook began long ago

        age = time.time() - psutil.Process().create_time()
        return cls(time.perf_counter() - max(age, 0.0))

    def start(self) -> None:
        """End the start-up."""
        self._switch("other")

    def stop(self) -> None:
        """Bring `seconds` up to now."""
        self._switch(self.part)

    def _switch(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[self.part] += now - self.since
        self.part, self.since = part, now

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Count the time within for `part`, less what is measured further in."""
        outer = self.part
        self._switch(part)
        try:
            yield
        finally:
            self._switch(outer)

    def each(self, part: str, items: Iterable[T]) -> Iterator[T]:
        """Yield `items`; the time in which each is made counts for `part`."""
        iterator = iter(items)
        while True:
            with self.measure(part):
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    @property
    def step_seconds(self) -> float:
        """Seconds in steps so far, those for their batches among them."""
        return self.seconds["data"] + self.seconds["step"]
