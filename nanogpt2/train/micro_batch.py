"""The micro-batch: how many sequences go through the model at a time, as memory allows."""

from collections.abc import Callable

import torch
from torch import Tensor

from nanogpt2.base.errors import DeviceError
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
        self.size = min(config.batch_size, self.windows_per_step // group.size)

    def fit(self, work: Callable[[], Tensor]) -> Tensor:
        """Return what `work` returns; where memory runs out, try again with half the size.

        The result is the same, up to rounding. DeviceError where not even one sequence fits.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._is_capturing():
                    raise  # a capture that fails is given up, and the step done without
                if not self.group.retries:
                    raise DeviceError(
                        f"out of memory with {self.size} sequences at a time: halve"
                        " batch_size and double gradient_accumulation_steps"
                    ) from error
                if self.size == 1:
                    raise DeviceError(describe_shortage(self.config, self.device)) from error
            self._halve()

    def _is_capturing(self) -> bool:
        return self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()

    def _halve(self) -> None:
        self.free()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.size //= 2
        self.say(
            f"warning: out of memory: going on with {self.size} sequences at a time instead"
            f" of {self.config.batch_size}; each step still sees {self.windows_per_step}"
        )
