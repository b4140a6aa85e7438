"""States written while the run goes on, one at a time, from a copy on the host."""

import copy
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanogpt2.base.system.errors import DataError
from nanogpt2.device.memory import free_host_bytes, pin, unpin
from nanogpt2.train.unfinished.resume import StateFiles

ALIGNMENT = 64  # bytes, at whose multiples each tensor's memory begins
SPARED = 2  # times the memory of a copy must be free for it

Key = tuple[torch.device, int, int]  # where memory is, and its size in bytes


class StateWriter:
    """Writes the states of a run on `device` into `files`, in a thread of its own."""

    def __init__(self, files: StateFiles, device: torch.device) -> None:
        self.files = files
        self.copy = HostCopy(device)
        self.thread = ThreadPoolExecutor(1, "states")
        self.step = 0  # of the state that was begun last
        self.work: Future[object] | None = None  # under way, or its outcome is not yet told

    def make_room(self, size: int) -> None:
        """Begin to take memory for copies of `size` bytes."""
        self.work = self.thread.submit(self.copy.make_room, size)

    def begin(self, step: int, state: dict[str, Any]) -> None:
        """Begin to write `state`, once `ended` was waited for; the run may go on and change it.

        Where there is no memory for a copy, the state is written before this returns.
        """
        self.step = step
        if self.copy.make_room(bytes_of(state)):
            self.work = self.thread.submit(self._write, self.copy.take(state))
        else:
            self.work = self.thread.submit(self._write, state)
            wait([self.work])

    def _write(self, state: dict[str, Any]) -> None:
        self.copy.wait()
        self.files.write(self.step, state)

    def ended(self, *, waiting: bool) -> DataError | None:
        """Return, once, what kept the last state from being written, with `waiting` at its end.

        What else was raised is raised.
        """
        if self.work is None or not (waiting or self.work.done()):
            return None
        work, self.work = self.work, None
        error = work.exception()
        if error is None or isinstance(error, DataError):
            return error
        raise error

    def close(self) -> None:
        """End the thread and give the memory back; what is being written becomes whole."""
        self.thread.shutdown()
        self.copy.close()


class HostCopy:
    """Memory on the host for a copy of a state on `device`, used again for the next one.

    A GPU copies into it by itself, since its pages are pinned: the host goes on, and what it asks
    of the GPU afterwards waits for the copy.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.memory = np.empty(0, np.uint8)
        self.is_pinned = False
        self.copied: torch.cuda.Event | None = None

    def make_room(self, size: int) -> bool:
        """Have memory for copies of `size` bytes; return whether it could be had.

        The last copy is lost where it was smaller.
        """
        if size <= len(self.memory):
            return True
        self.close()
        if self.device.type not in ("cpu", "cuda") or SPARED * size > free_host_bytes():
            return False
        try:
            memory = np.empty(size, np.uint8)
        except MemoryError:
            return False
        memory.fill(0)  # so that its pages are there: to get them takes as long as to fill them
        self.is_pinned = self.device.type == "cuda" and pin(memory)
        self.memory = memory
        return True

    def take(self, content: Any) -> Any:
        """Return `content` with tensors of the host, to be read after `wait`; there is room.

        The last copy is overwritten. Tensors that share memory share it in the copy.
        """
        at, hosts = 0, dict[Key, torch.UntypedStorage]()
        for key, storage in _storages(content).items():
            host = torch.frombuffer(self.memory, dtype=torch.uint8, count=key[2], offset=at)
            whole = torch.empty(0, dtype=torch.uint8, device=storage.device)
            host.copy_(whole.set_(storage), non_blocking=True)
            hosts[key], at = host.untyped_storage(), at + _aligned(key[2])
        if self.device.type == "cuda":
            self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self.copied.record()
        return _in_memory(content, hosts)

    def wait(self) -> None:
        """Return once the last copy is there."""
        if self.copied is not None:
            self.copied.synchronize()

    def close(self) -> None:
        """Give the memory back; no copy is read any more."""
        self.wait()
        if self.is_pinned:
            unpin(self.memory)
        self.memory, self.is_pinned = np.empty(0, np.uint8), False


def bytes_of(content: Any) -> int:
    """Return the memory that a copy of all tensors in `content` takes."""
    return sum(_aligned(size) for _, _, size in _storages(content))


def _aligned(size: int) -> int:
    return size + -size % ALIGNMENT


def _key(tensor: Tensor) -> Key:
    storage = tensor.untyped_storage()
    return storage.device, storage.data_ptr(), storage.nbytes()


def _tensors(content: Any) -> Iterator[Tensor]:
    """Yield the tensors in dicts, lists and tuples."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, dict):
        yield from (tensor for item in content.values() for tensor in _tensors(item))
    elif isinstance(content, list | tuple):
        yield from (tensor for item in content for tensor in _tensors(item))


def _storages(content: Any) -> dict[Key, torch.UntypedStorage]:
    """Return the memory of all tensors, each piece once, but for the empty ones."""
    found = {_key(tensor): tensor.untyped_storage() for tensor in _tensors(content)}
    return {key: storage for key, storage in found.items() if key[2]}


def _in_memory(content: Any, hosts: dict[Key, torch.UntypedStorage]) -> Any:
    """Return `content` with its tensors in other memory, in new dicts, lists and tuples."""
    if isinstance(content, Tensor):
        host = hosts.get(_key(content))
        if host is None:
            return content
        place = content.storage_offset(), content.size(), content.stride()
        return torch.empty(0, dtype=content.dtype).set_(host, *place)
    if isinstance(content, dict):
        items = copy.copy(content)  # an OrderedDict too, with its attributes
        items.update({key: _in_memory(item, hosts) for key, item in content.items()})
        return items
    if isinstance(content, list | tuple):
        return type(content)(_in_memory(item, hosts) for item in content)
    return content
