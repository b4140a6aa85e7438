"""The heap of glibc, on Linux: memory that is freed is kept for what comes next, or given back."""

import ctypes
import sys
from collections.abc import Callable

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8  # malloc.h
LARGEST_BLOCK = 1 << 25  # bytes: the most that glibc takes for the second
ALL = -1


def keep_memory(most: int = ALL) -> None:
    """Keep memory that is freed, up to `most` bytes, for what comes next in this process.

    glibc would give each block of some MB back to the system, which zeroes it page by page before
    it can be had again. Where steps of training are alike, that takes a tenth to a half of them.
    """
    if mallopt := _find_in_c("mallopt"):
        mallopt(M_TRIM_THRESHOLD, most)
        if most == ALL:
            mallopt(M_MMAP_MAX, 0)  # whatever their size
        else:
            mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)


def release_memory() -> None:
    """Give memory that was freed back to the system, after work that took much of it.

    glibc keeps what lies below something that is still held. It takes some milliseconds.
    """
    if trim := _find_in_c("malloc_trim"):
        trim(0)


def share_heap() -> None:
    """Have one heap for all threads that are yet to come: `release_memory` can shrink only that.

    glibc gives the thread that receives what workers send another one.
    """
    if mallopt := _find_in_c("mallopt"):
        mallopt(M_ARENA_MAX, 1)


def _find_in_c(name: str) -> Callable[..., int] | None:
    """Return a function of glibc, on Linux where that is the library of C."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
