"""Worker processes: one function on many items, on several cores, with the results in order."""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, TypeVar

from nanogpt2.base.system.errors import DeviceError, NanoGPT2Error
from nanogpt2.base.system.heap import keep_memory, share_heap

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2  # items given out for each worker: one to work on, one that waits for it
THREADS = Path("/proc/self/task")  # Linux has a folder for each thread of this process
MOST_ON_WINDOWS = 61  # processes for which one can wait there
KEPT_BYTES = 1 << 25  # of freed memory, by a worker
SAFE_THREADS = {"screen", "parent"}  # by name: they hold no lock while a process is forked


def keep_alone() -> None:
    """Have numpy start no threads for products, before it is imported: then workers are forked.

    All threads share one heap, also the one that receives what workers send.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    share_heap()


def is_alone() -> bool:
    """Return whether this process is known to have one thread, but for those of SAFE_THREADS.

    One that is forked has what was imported, at once, but also locks that other threads held, such
    as those of OpenMP.
    """
    safe = sum(thread.name in SAFE_THREADS for thread in threading.enumerate())
    return THREADS.is_dir() and len(list(THREADS.iterdir())) == 1 + safe


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def aside(function: Callable[..., Result], *arguments: Any) -> Callable[[], Result]:
    """Begin `function(*arguments)` in a process of its own; return what waits for its result.

    What it raises is raised by that. Where this process cannot be forked, or has one core alone,
    the call is made when it is waited for.
    """
    if sys.platform == "win32" or count_cores() == 1 or not is_alone():
        return partial(function, *arguments)
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    context.Process(target=_send, args=(sender, function, arguments), daemon=True).start()
    sender.close()

    def wait_for_it() -> Result:
        try:
            outcome = receiver.recv()
        except EOFError:  # it was killed
            return function(*arguments)
        if isinstance(outcome, NanoGPT2Error):
            raise outcome
        result: Result = outcome
        return result

    return wait_for_it


def _send(sender: Connection, function: Callable[..., object], arguments: tuple[Any, ...]) -> None:
    try:
        outcome = function(*arguments)
    except NanoGPT2Error as error:
        outcome = error
    sender.send(outcome)


class Workers:
    """Processes that wait for work, as long as this context lasts; with one, this process works.

    They end with this process, however it ends.
    """

    def __init__(self, count: int) -> None:
        self.count = min(count, MOST_ON_WINDOWS) if sys.platform == "win32" else count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        if self.count > 1:
            context = get_context("fork" if is_alone() else "spawn")
            self._pool = ProcessPoolExecutor(self.count, mp_context=context, initializer=_begin)
            self._pool.submit(os.getpid)  # forked ones all begin now, with what is open so far
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def each(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """Yield what `function` gives for each item, in order.

        Function, items and results go through pickle. What `function` raises is raised here, that
        of the first item first; DeviceError where a worker was killed.
        """
        if self._pool is None:
            yield from map(function, items)
            return
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(function, item))
                if len(waiting) >= AHEAD * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DeviceError(
                "a worker process was killed: most likely memory ran out; give fewer with --workers"
            ) from error
        finally:
            for future in waiting:
                future.cancel()


def _begin() -> None:
    """Leave Ctrl-C to the parent process, and end when it does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory(KEPT_BYTES)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := parent_process():
        wait([parent.sentinel])
        os._exit(1)
