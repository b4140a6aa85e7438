"""Memory: how much a device has, and when it has run out."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
import torch

# In the words of torch's CPU allocator and oneDNN; of CUDA, ROCm, Triton and cuBLAS; and of MPS.
SHORTAGES = (
    *("can't allocate memory", "could not create a primitive"),
    *("CUDA error: out of memory", "[CUDA]: out of memory", "ALLOC_FAILED"),
    *("HIP error: out of memory", "MPS backend out of memory"),
)


def available_bytes(device: torch.device) -> int:
    """Return the memory of the device, or of the host, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return host_bytes()


def host_bytes() -> int:
    """Return the host's memory in bytes, or the limit of this process or its container if lower."""
    return min([psutil.virtual_memory().total, *_process_limits(), *container_limits(Path("/"))])


def free_host_bytes() -> int:
    """Return how much of the host's memory this process may take yet, in bytes."""
    limits = host_bytes() - psutil.Process().memory_info().rss
    return min(psutil.virtual_memory().available, limits)


def _process_limits() -> list[int]:
    if sys.platform == "win32":
        return []
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return [] if limit == resource.RLIM_INFINITY else [limit]


def container_limits(root: Path) -> list[int]:
    """Return the limits in bytes of this process's control groups, of either version of Linux's.

    `root` is where `proc` and `sys` are. A group's limit holds for those inside it; a container may
    see its own group as the outermost.
    """
    limits = []
    for hierarchy, name, group in _memory_groups(root / "proc/self/cgroup"):
        top = root / "sys/fs/cgroup" / hierarchy
        place = top / group.strip("/")
        for folder in (place, *place.parents):
            if folder.is_relative_to(top):
                with suppress(OSError, ValueError):  # no such group here, or "max"
                    limits.append(int((folder / name).read_text(encoding="ascii")))
    return limits


def _memory_groups(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the hierarchy, the file of its limits and the group, of what `path` lists."""
    with suppress(OSError, UnicodeDecodeError):
        for line in path.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                yield "", "memory.max", group
            elif "memory" in controllers.split(","):
                yield "memory", "memory.limit_in_bytes", group


def pin(memory: npt.NDArray[np.uint8]) -> bool:
    """Fix the pages of `memory`, so that a GPU copies into it by itself; return whether it does.

    torch's own pinned memory comes in powers of two.
    """
    address, portable = memory.ctypes.data, 1
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    return int(runtime.cudaHostRegister(address, memory.nbytes, portable)) == 0


def unpin(memory: npt.NDArray[np.uint8]) -> None:
    """Undo `pin`."""
    torch.cuda.cudart().cudaHostUnregister(memory.ctypes.data)  # type: ignore[no-untyped-call]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory ran out, on a GPU or on the host."""
    said = any(words in str(error) for words in SHORTAGES)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and said
    )
