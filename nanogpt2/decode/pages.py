"""Memory in large pages, where the system has them: long streams of weights are read quicker."""

import mmap
import sys
from contextlib import suppress

import torch
from torch import Tensor

ALIGNED = 64  # bytes: a line of a processor's cache


class Room:
    """So many bytes, zero, of which tensors take parts; what none takes costs no memory."""

    def __init__(self, size: int) -> None:
        self.memory = mmap.mmap(-1, max(size, 1) + ALIGNED)
        if sys.platform == "linux":
            with suppress(OSError):  # a kernel may be built without them
                self.memory.madvise(mmap.MADV_HUGEPAGE)
        self.taken = 0

    def take(self, count: int, dtype: torch.dtype) -> Tensor:
        """Return a tensor (count,) of memory that no other has."""
        part = torch.frombuffer(self.memory, dtype=dtype, count=count, offset=self.taken)
        self.taken += -(-count * dtype.itemsize // ALIGNED) * ALIGNED
        return part
