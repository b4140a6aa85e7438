"""Where trials run side by side: a GPU for each, or a share of the processor's cores."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.base.system.workers import count_cores

MEMORY = 2 * 2**30  # bytes that a trial on the CPU may take; a guess
GPUS = ("nvidia[0-9]*", "kfd", "dxg")  # of NVIDIA, of AMD, and within Windows
VISIBLE = "CUDA_VISIBLE_DEVICES"
THREADS = "OMP_NUM_THREADS"


def find_places(
    count: int, *, devices: Sequence[str], processes: int, jobs: int | None
) -> list[Mapping[str, str]]:
    """Return the environment of each of at most `count` trials side by side.

    `devices` are the values of the key `device` among the trials, and `processes` is the largest
    `num_processes`. `jobs` trials, where given; else one for each GPU, or for each core that has
    the memory. ConfigError where there are fewer GPUs than `jobs` need.
    """
    gpus = visible_gpus() if any(each == "auto" or "cuda" in each for each in devices) else []
    if gpus:
        groups = [gpus[at : at + processes] for at in range(0, len(gpus), processes)]
        groups = [group for group in groups if len(group) == processes]
        if len(groups) < (jobs or 1):
            raise ConfigError(
                f"found --jobs {jobs or 1} with {len(gpus)} GPUs and num_processes {processes};"
                f" allowed: --jobs of at most {len(groups)}"
            )
        groups = groups[: min(jobs or len(groups), count)]
        return [{VISIBLE: ",".join(group)} for group in groups]
    cores = count_cores()
    room = max(psutil.virtual_memory().available // MEMORY, 1)
    wanted = max(min(jobs or min(cores // processes, room), count), 1)
    threads = os.environ.get(THREADS) or str(max(cores // (wanted * processes), 1))
    return [{THREADS: threads}] * wanted


def visible_gpus() -> list[str]:
    """Return the GPUs that trials may have, as CUDA_VISIBLE_DEVICES has them."""
    if (given := os.environ.get(VISIBLE)) is not None:
        return [part.strip() for part in given.split(",") if part.strip() not in ("", "-1")]
    if os.name == "posix" and not any(set(Path("/dev").glob(name)) for name in GPUS):
        return []  # torch takes a second to say so
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]
