"""One step of the optimizer: forward and backward over micro-batches, then clip and update."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nanogpt2 import memory
from nanogpt2.config import Config
from nanogpt2.dataset import Dataset, draw_windows, get_batch
from nanogpt2.device import autocast, find_device, mixed_dtype, use_deterministic_kernels
from nanogpt2.errors import DeviceError
from nanogpt2.model import GPT
from nanogpt2.optimizer import learning_rate_at, make_optimizer

EVALUATION = 1  # the stream of random numbers that evaluation draws from


@dataclass(frozen=True)
class StepReport:
    """What a step found: its number, learning rate, and (loss, gradient norm) on the device."""

    step: int
    learning_rate: float
    figures: Tensor  # (2,) float32


class Stepper:
    """A model and its optimizer on a device, and the size of batch that its memory bears.

    `say` receives a line when memory runs out and the micro-batch is halved.
    """

    def __init__(self, model: GPT, config: Config, *, say: Callable[[str], None] = print) -> None:
        self.config = config
        self.say = say
        self.device = find_device(config.device)
        if self.device.type == "cuda":
            use_deterministic_kernels(config.deterministic)
        self.model = model.to(self.device)
        self.optimizer = make_optimizer(model, config)
        self.precision = autocast(self.device, enabled=config.mixed_precision)
        self.scales = config.mixed_precision and mixed_dtype(self.device) == torch.float16
        # Beside scaling for float16, it keeps an update with a gradient that is not finite from
        # the weights, without the host waiting for the device.
        self.scaler = torch.amp.GradScaler(
            self.device.type, init_scale=65536.0 if self.scales else 1.0
        )
        self.micro_batch = config.batch_size

    @property
    def windows_per_step(self) -> int:
        """Sequences that one step of the optimizer sees."""
        return self.config.batch_size * self.config.gradient_accumulation_steps

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of `step`."""
        return learning_rate_at(
            step,
            peak=self.config.learning_rate,
            min_fraction=self.config.min_learning_rate_fraction,
            warmup_iters=self.config.warmup_iters,
            max_iters=self.config.max_iters,
        )

    def step(self, dataset: Dataset, step: int, *, check: Callable[[], None]) -> StepReport:
        """Do one step on the batch of `step`; weights with a non-finite gradient are left alone.

        `check` is called between micro-batches and may raise to give the step up. Raises
        DeviceError where not even one sequence fits into memory.
        """
        windows = draw_windows(
            len(dataset), self.windows_per_step, seed=self.config.seed, step=step
        )
        loss = self._in_memory(lambda: self._backward(dataset, windows, step, check))
        rate = self.learning_rate(step)
        norm = self._update(rate)
        return StepReport(step, rate, torch.stack([loss, norm]))

    def _backward(
        self, dataset: Dataset, windows: list[int], step: int, check: Callable[[], None]
    ) -> Tensor:
        """Add up the gradient over all windows and return the mean loss."""
        self.optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(step_seed(self.config.seed, step))  # dropout's
        total = torch.zeros((), device=self.device)
        for idx, targets in self.batches(dataset, windows):
            check()
            share = len(idx) / len(windows)
            with self.precision():
                loss = self.model(idx, targets)[1] * share
            self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _update(self, rate: float) -> Tensor:
        """Clip, update the weights with learning rate `rate`, and return the gradient's norm."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.unscale_(self.optimizer)
        limit = self.config.grad_clip or float("inf")
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.scaler.step(self.optimizer)
        self.scaler.update(None if self.scales else 1.0)
        return norm

    @torch.no_grad()
    def estimate_loss(self, dataset: Dataset, *, check: Callable[[], None] = lambda: None) -> float:
        """Return the mean loss, in nats per token, of `eval_iters` batches, always the same."""
        self.model.eval()
        try:
            losses = [
                self._in_memory(lambda number=number: self._evaluate(dataset, number, check))  # type: ignore[misc]
                for number in range(self.config.eval_iters)
            ]
        finally:
            self.model.train()
        return torch.stack(losses).double().mean().item()

    def _evaluate(self, dataset: Dataset, number: int, check: Callable[[], None]) -> Tensor:
        """Return the mean loss of evaluation batch `number`."""
        check()
        windows = draw_windows(
            len(dataset),
            self.config.batch_size,
            seed=self.config.seed,
            step=number,
            stream=EVALUATION,
        )
        with self.precision():
            losses = [
                self.model(idx, targets)[1] * (len(idx) / len(windows))
                for idx, targets in self.batches(dataset, windows)
            ]
        return torch.stack(losses).sum()

    def batches(self, dataset: Dataset, windows: list[int]) -> Any:
        """Yield `windows` as micro-batches (idx, targets) on the device."""
        for first in range(0, len(windows), self.micro_batch):
            idx, targets = get_batch(dataset, windows[first : first + self.micro_batch])
            yield (
                idx.to(self.device, non_blocking=True),
                targets.to(self.device, non_blocking=True),
            )

    def _in_memory(self, work: Callable[[], Tensor]) -> Tensor:
        """Return what `work` returns; where memory runs out, try again with half the micro-batch.

        The effective batch stays as it is, and so does the result, up to rounding.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error):
                    raise
                if self.micro_batch == 1:
                    shortage = memory.describe_shortage(self.config, self.device)
                    raise DeviceError(shortage) from error
            self._halve_micro_batch()

    def _halve_micro_batch(self) -> None:
        """Free what the failed attempt held and halve the micro-batch."""
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.micro_batch //= 2
        self.say(
            f"warning: out of memory: going on with {self.micro_batch} sequences at a time instead"
            f" of {self.config.batch_size}; each step still sees {self.windows_per_step}"
        )

    def synchronize(self) -> None:
        """Wait until the device has done what it was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs of the model, the optimizer and the scaler."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "micro_batch": self.micro_batch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.micro_batch = state["micro_batch"]


def step_seed(seed: int, step: int) -> int:
    """Return the seed of one step's dropout."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
