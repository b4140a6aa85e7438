"""Idle threads: they spin while the cores are ours, and sleep while others want them.

GNU's OpenMP, torch's on Linux, lets a thread that waits for work spin for milliseconds before it
sleeps. On a quiet machine that saves waking it. On a busy one it takes the core from the thread
whose work it waits for, and training is several times slower than its share of the machine allows.
libgomp spins for microseconds only as long as it manages more threads than there are processors
(`do_spin` in its wait.h): a team of threads that sleep makes that so, and its end undoes it. The
number of threads that compute, and with it every bit, stays as it is.
"""

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

FIRST_LOOK, LOOK = 0.05, 0.25  # seconds
BUSY = 0.15  # cores that our threads wanted and did not have
CALM_LOOKS = 4  # in a row, before threads spin again
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # a user's own, which win

Waits = dict[str, int]  # nanoseconds that each thread has waited for a processor


@cache
def share_cores() -> None:
    """Let idle threads sleep while other programs want the cores, from now on.

    Where OpenMP is not GNU's, or the kernel does not tell how long threads wait, nothing is done.
    """
    libraries = _loaded_libraries()
    decided = any(name in os.environ for name in SETTINGS)
    if libraries and _read_waits() and torch.get_num_threads() > 1 and not decided:
        sleepers = Sleepers(libraries)
        arguments = (_read_waits, sleepers.set, time.sleep)
        threading.Thread(target=follow_load, args=arguments, daemon=True).start()


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Let torch compute with so many threads for a while; 0 leaves their number alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Sleepers:
    """A team of OpenMP threads with nothing to do, as long as it is set."""

    def __init__(self, libraries: list[ctypes.CDLL]) -> None:
        self.libraries = libraries
        self.done: threading.Event | None = None

    def set(self, wanted: bool) -> None:
        """Make the team, or let it end."""
        if wanted and self.done is None:
            self.done, made = threading.Event(), threading.Event()
            threading.Thread(target=self._sleep, args=(made, self.done), daemon=True).start()
            made.wait()
        elif not wanted and self.done is not None:
            self.done.set()
            self.done = None

    def _sleep(self, made: threading.Event, done: threading.Event) -> None:
        """Own a team in each library until `done`; it goes with the thread that made it."""
        for library in self.libraries:
            missing = library.omp_get_num_procs() + 1 - torch.get_num_threads()
            nothing = ctypes.cast(library.omp_get_thread_num, ctypes.c_void_p)
            library.GOMP_parallel(nothing, None, 1 + max(1, missing), 0)
        made.set()
        done.wait()


def follow_load(
    read_waits: Callable[[], Waits],
    let_sleep: Callable[[bool], None],
    pause: Callable[[float], object],
) -> None:
    """For ever, call `let_sleep` with whether idle threads should sleep.

    They should from the moment that ours wait for processors, until they have not for a second.
    """
    waits, at, calm = read_waits(), time.perf_counter(), CALM_LOOKS
    pause(FIRST_LOOK)
    while True:
        before, since = waits, at
        waits, at = read_waits(), time.perf_counter()
        waited = sum(waits[thread] - before.get(thread, 0) for thread in waits) / 1e9
        calm = 0 if waited > BUSY * (at - since) else calm + 1
        let_sleep(calm < CALM_LOOKS)
        pause(LOOK)


def _read_waits() -> Waits:
    """Return how long each thread of this process has waited for a processor, where it is known."""
    waits = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            waits[path.parent.name] = int(path.read_text(encoding="ascii").split()[1])
        except OSError:
            continue  # the thread has ended
    return waits


def _loaded_libraries() -> list[ctypes.CDLL]:
    """Return each of GNU's OpenMP libraries that this process has loaded; most often it is one."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if "libgomp" in line}
    return [ctypes.CDLL(path) for path in sorted(paths)]
