"""Memory: how much a device has, and when it has run out."""

import psutil
import torch

# In the words of torch's CPU allocator and oneDNN; and of CUDA, Triton and cuBLAS.
SHORTAGES = (
    *("can't allocate memory", "could not create a primitive"),
    *("CUDA error: out of memory", "[CUDA]: out of memory", "ALLOC_FAILED"),
)


def available_bytes(device: torch.device) -> int:
    """Return the memory of the device, or of the host, in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return host_bytes()


def host_bytes() -> int:
    """Return the host's memory in bytes, or this process's limit where that is lower."""
    total: int = psutil.virtual_memory().total
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    except ImportError:  # Windows
        return total
    return total if limit == resource.RLIM_INFINITY else min(total, limit)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory ran out, on a GPU or on the host."""
    said = any(words in str(error) for words in SHORTAGES)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and said
    )
