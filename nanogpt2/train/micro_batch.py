"""The micro-batch: how many sequences go through the model at a time, as memory allows."""

from collections.abc import Callable

import torch
from torch import Tensor

from nanogpt2.base.system.errors import DeviceError
from nanogpt2.config.config import Config
from nanogpt2.device.group import Group
from nanogpt2.device.memory import is_out_of_memory
from nanogpt2.model.memory import describe_shortage


class MicroBatch:
    """A size in sequences, halved each time that memory runs out; a step's batch stays as it is.

    `free` gives back what a failed attempt holds; `say` receives a line at each halving.
    """

    def __init__(
        self,
        config: Config,
        device: torch.device,
        group: Group,
        *,
        free: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self.config, self.device, self.group = config, device, group
        self.free, self.say = free, say
        self.windows_per_step = config.batch_size * config.gradient_accumulation_steps
        self.retries = group.retries and config.shards == 1  # smaller ones round otherwise
        parts = group.size if config.shards == 1 else config.shards
        self.size = min(config.batch_size, self.windows_per_step // parts)

    def fit(self, work: Callable[[], Tensor]) -> Tensor:
        """Return what `work` returns; where memory runs out, try again with half the size.

        The result is the same, up to rounding. DeviceError where not even one sequence fits, or
        where a smaller size cannot be taken: under full sharding, and with shards, whose bytes
        depend on it.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._is_capturing():
                    raise  # a capture that fails is given up, and the step done without
                if self.size == 1:
                    raise DeviceError(describe_shortage(self.config, self.device)) from error
                if not self.retries:
                    raise DeviceError(self._describe_halves()) from error
            self._halve()

    def _is_capturing(self) -> bool:
        return self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()

    def _describe_halves(self) -> str:
        smaller = range(self.size // 2, 0, -1)
        half = next(size for size in smaller if self.windows_per_step % size == 0)
        return (
            f"out of memory with {self.size} sequences at a time: set batch_size to {half} and"
            f" gradient_accumulation_steps to {self.windows_per_step // half}"
        )

    def _halve(self) -> None:
        self.free()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.size //= 2
        self.say(
            f"warning: out of memory: going on with {self.size} sequences at a time instead"
            f" of {self.config.batch_size}; each step still sees {self.windows_per_step}"
        )
