"""The loop that draws: between two tokens answers join, leave, and are handed what is theirs."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from nanogpt2.serve.batching.answer import Answer
from nanogpt2.serve.batching.batch import Batch
from nanogpt2.serve.batching.drawer import Drawer
from nanogpt2.serve.batching.drawing import Drawing
from nanogpt2.serve.completions.errors import Refusal, broken, ending, too_busy, wrong
from nanogpt2.serve.completions.limits import Limits
from nanogpt2.serve.metrics import ModelMetrics

PACE, PIECES = 0.02, 500  # seconds between two pieces of a stream; pieces a second of all, about


@dataclass(eq=False)
class Job:
    """The answers of one request; `news` is set where there is something to send."""

    answers: Sequence[Answer]
    stream: bool
    news: asyncio.Event = field(default_factory=asyncio.Event)
    begun: float = field(default_factory=time.perf_counter)
    first: float | None = None  # when the first token was drawn
    due: float = 0.0  # when the next piece may be sent
    failed: Refusal | None = None

    @property
    def is_over(self) -> bool:
        """Whether each answer is at its end, good or bad."""
        return self.failed is not None or all(answer.finish for answer in self.answers)


class Engine:
    """Draws the answers of all jobs of one model, in batches that compute side by side."""

    def __init__(self, batches: Sequence[Batch], limits: Limits, metrics: ModelMetrics) -> None:
        self.limits, self.metrics = limits, metrics
        self.drawers = [Drawer(batch) for batch in batches]
        self.waiting: deque[tuple[Job, Answer]] = deque()
        self.running: dict[Drawing, tuple[Job, Answer, Drawer]] = {}
        self.is_ending = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self.waiting and not self.running

    def submit(self, job: Job) -> None:
        """Put the answers of `job` in the queue; Refusal where they do not fit or it ends."""
        if self.is_ending:
            raise ending()
        most = self.limits.queue + sum(drawer.batch.lanes.rows for drawer in self.drawers)
        if len(job.answers) > most:
            raise wrong("n", f"{len(job.answers)} answers", f"{most}, drawn and waiting")
        room = self.limits.queue + sum(len(drawer.batch.free) for drawer in self.drawers)
        if len(self.waiting) + len(job.answers) > room:
            raise too_busy()
        self.waiting += [(job, answer) for answer in job.answers if not answer.finish]
        self._count()
        self._lightest().wake()

    def drop(self, job: Job) -> None:
        """Free the places of `job`, whose client is gone or has all that it asked for."""
        self.waiting = deque(each for each in self.waiting if each[0] is not job)
        for answer in job.answers:
            if answer.drawing in self.running:
                self._end(answer.drawing)
        self._count()

    async def run(self) -> None:
        """Draw for ever; what fails is told to all that wait for an answer, and raised."""
        try:
            await asyncio.gather(*map(self._run, self.drawers))
        finally:
            self._fail()
            for drawer in self.drawers:
                drawer.thread.shutdown(wait=False)

    async def _run(self, drawer: Drawer) -> None:
        loop, drawn = asyncio.get_running_loop(), list[tuple[Drawing, int]]()
        while True:
            drawer.clear()
            self._admit(drawer)
            if not drawer.load:
                self._hand_out(drawn)
                drawn = []
                await drawer.work.wait()
                continue
            drawing = loop.run_in_executor(drawer.thread, drawer.draw_some)
            self._hand_out(drawn)  # meanwhile
            drawn = await drawing

    def _lightest(self) -> Drawer:
        return min(self.drawers, key=lambda drawer: drawer.load)

    def _admit(self, drawer: Drawer) -> None:
        """Let answers join that wait, but where another drawer has fewer: it is told."""
        while self.waiting and drawer.batch.free:
            lightest = self._lightest()
            if lightest.load < drawer.load:
                lightest.wake()
                break
            job, answer = self.waiting.popleft()
            drawer.batch.join(answer.drawing)
            self.running[answer.drawing] = (job, answer, drawer)
            self.metrics.prompt_tokens.inc(len(answer.drawing.prompt))
        self._count()

    def _hand_out(self, drawn: Sequence[tuple[Drawing, int]]) -> None:
        """Give each answer its tokens, and tell its job where there is something to send."""
        now, gained = time.perf_counter(), 0
        for drawing, count in drawn:
            if drawing not in self.running:
                continue  # nobody wants it any more
            job, answer, _ = self.running[drawing]
            before = answer.count
            answer.take(count)
            if answer.count == before:
                continue
            gained += answer.count - before
            if answer.finish:
                self._end(drawing)
            if job.first is None:
                job.first = now
                self.metrics.first_token.observe(now - job.begun)
            if (job.stream and now >= job.due) or (answer.finish and job.is_over):
                job.news.set()
                job.due = now + max(PACE, len(self.running) / PIECES)
        self.metrics.tokens.inc(gained)

    def _end(self, drawing: Drawing) -> None:
        _, _, drawer = self.running.pop(drawing)
        drawer.end(drawing)

    def _count(self) -> None:
        self.metrics.running.set(len(self.running))
        self.metrics.waiting.set(len(self.waiting))

    def _fail(self) -> None:
        self.is_ending = True
        for job in (
            *(each[0] for each in self.waiting),
            *(each[0] for each in self.running.values()),
        ):
            job.failed = broken()
            job.news.set()
        self.waiting.clear()
        self.running.clear()
