"""Runs of a study, spread over GPUs or cores: each that is finished is a line of a file."""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from threading import Thread
from typing import Any, Protocol, TypeVar

import torch

CORES = 2  # of a worker that has cores of its own


class Job(Protocol):
    """A run that can be sent to another process; `str` of it says which it is."""

    @property
    def name(self) -> str:
        """What tells it from any other run of the file; its line has it too."""

    @property
    def needs(self) -> Sequence[str]:
        """The names of runs that must be finished before."""


AnyJob = TypeVar("AnyJob", bound=Job)


def run_all(
    jobs: Iterable[AnyJob],
    do: Callable[[AnyJob], dict[str, Any]],
    out: Path,
    *,
    workers: int,
    device: str,
    first_core: int | None = None,
    seconds: float,
) -> int:
    """Do the jobs that `out` lacks, append the line of each, and return how many failed.

    No job begins when less of `seconds` is left than the longest took so far. On CUDA the workers
    share the GPUs evenly. With `first_core` each worker has two cores of its own from there on.
    """
    rows = {row["name"]: row for row in read_rows(out)}
    done, longest = set(rows), max((row.get("seconds", 0.0) for row in rows.values()), default=0.0)
    waiting = [job for job in jobs if job.name not in done]
    context, failed, began = get_context("spawn"), 0, time.perf_counter()
    places = context.Queue()
    for place in range(workers):
        places.put(place)
    running: dict[Future[dict[str, Any]], tuple[AnyJob, float]] = {}
    start = partial(begin, places, device, first_core)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=start) as pool:
        while True:
            if time.perf_counter() - began + longest < seconds:
                ready = (job for job in waiting if done.issuperset(job.needs))
                for job in list(islice(ready, workers - len(running))):
                    waiting.remove(job)
                    running[pool.submit(do_anew, do, job)] = job, time.perf_counter()
            if not running:
                if waiting:
                    print(f"{len(waiting)} runs are left: the same command goes on with them")
                return failed
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, started = running.pop(future)
                longest = max(longest, time.perf_counter() - started)
                if error := future.exception():  # no reason to lose the others
                    failed += 1
                    print(f"{job}: failed: {error!r}", file=sys.stderr, flush=True)
                    continue
                done.add(job.name)
                append(out, {"name": job.name, **future.result()})
                print(f"{job}: {future.result()['loss']:.4f}", flush=True)


def begin(places: Any, device: str, first_core: int | None) -> None:
    """Take a GPU, or cores, of this worker's own; end with the parent."""
    end_with_parent()
    place = places.get()
    if device == "cuda":
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = visible.split(",") if visible else range(torch.cuda.device_count())
        os.environ["CUDA_VISIBLE_DEVICES"] = str(gpus[place % len(gpus)])
    elif first_core is not None:
        start = first_core + place * CORES
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[start : start + CORES])
        torch.set_num_threads(CORES)


def end_with_parent() -> None:
    """Let this process end when the one that gives it runs does, however that ends."""
    if parent := parent_process():
        sentinel = [parent.sentinel]
        Thread(target=lambda: wait_for(sentinel) and os._exit(1), daemon=True).start()


def do_anew(do: Callable[[AnyJob], dict[str, Any]], job: AnyJob) -> dict[str, Any]:
    """Do a run, once what the one before left is free: a CUDA graph, and with it its memory."""
    gc.collect()
    return do(job)


def append(path: Path, row: Mapping[str, Any]) -> None:
    """Add `row` to the results."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a results file; none where there is no file yet."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def describe_machine(device: torch.device) -> str:
    """Return torch's version and what it computed on."""
    threads = torch.get_num_threads()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{threads} threads"
    return f"torch {torch.__version__}, {device.type}: {name}"
