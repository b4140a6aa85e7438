"""A batch that draws in a thread of its own, for an event loop that hands out what was drawn."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from nanogpt2.serve.batching.batch import Batch
from nanogpt2.serve.batching.drawing import Drawing

SLICE = 0.01  # seconds of drawing before what was drawn is handed out, where nothing else asks


class Drawer:
    """A batch and the thread that computes it.

    All else happens in the event loop: but for `is_wanted` nothing is shared while it computes.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self.work = asyncio.Event()
        self.is_wanted = False  # by answers that would join or leave
        self.gone: set[Drawing] = set()  # that leave before the next token

    @property
    def load(self) -> int:
        """How many answers it draws."""
        return len(self.batch.rows)

    def wake(self) -> None:
        """Let it look at what waits, before the next token."""
        self.is_wanted = True
        self.work.set()

    def end(self, drawing: Drawing) -> None:
        """Let `drawing` leave before the next token, if it has not."""
        self.gone.add(drawing)
        if drawing in self.batch.rows:
            self.wake()

    def clear(self) -> None:
        """Let leave what is gone; nothing computes now."""
        self.is_wanted = False
        self.work.clear()
        for drawing in self.gone & self.batch.rows.keys():
            self.batch.leave(drawing)
        self.gone.clear()

    def draw_some(self) -> list[tuple[Drawing, int]]:
        """Draw until somebody would join or leave, begins, or waits for long.

        Return the texts, and how many tokens each has.
        """
        drawings, end = list(self.batch.rows), time.perf_counter() + SLICE
        while self.batch.rows:
            gained = self.batch.step()
            begins = any(len(drawing.drawn) == 1 for drawing in gained)
            if begins or self.is_wanted or time.perf_counter() >= end:
                break
        return [(drawing, len(drawing.drawn)) for drawing in drawings]
