"""One step of the optimizer: forward and backward over micro-batches, then clip and update."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nanogpt2.base.errors import DeviceError
from nanogpt2.config.config import Config
from nanogpt2.device.device import autocast, find_device, precision_dtype, use_deterministic_kernels
from nanogpt2.device.graph import CapturedFunction
from nanogpt2.device.group import SINGLE, Group
from nanogpt2.device.memory import is_out_of_memory
from nanogpt2.device.threads import share_cores
from nanogpt2.kernels.choose import find_operators
from nanogpt2.model.gpt import GPT
from nanogpt2.model.operators import TORCH
from nanogpt2.report.stopwatch import Stopwatch
from nanogpt2.tokens.dataset import Dataset, TokenDataset, draw_windows, get_batch
from nanogpt2.train import memory
from nanogpt2.train.optimizer import (
    LossScale,
    keep_rates_on_device,
    learning_rate_factor,
    make_optimizers,
    set_learning_rates,
)

EVALUATION = 1  # the stream of random numbers that evaluation draws from


@dataclass(frozen=True)
class StepReport:
    """What a step found: its number, learning rate, and (loss, gradient norm) on the device."""

    step: int
    learning_rate: float
    figures: Tensor  # (2,) float32


def no_check() -> None:
    """Check nothing."""


class Stepper:
    """A model and its optimizers on a device, and the size of batch that its memory bears.

    `say` receives a line when memory runs out and the micro-batch is halved; `stopwatch` tells
    the time in which batches are made; `group` shares the batch, and perhaps the model, among
    processes.
    """

    def __init__(
        self,
        model: GPT,
        config: Config,
        *,
        say: Callable[[str], None] = print,
        stopwatch: Stopwatch | None = None,
        group: Group = SINGLE,
    ) -> None:
        self.config = config = config.resolved()
        self.say = say
        self.stopwatch = stopwatch or Stopwatch()
        self.group = group
        self.device = find_device(config.device)
        self.captures = self.device.type == "cuda" and group.captures
        self.model = model
        group.place(model, model.h, self.device)
        self.optimizers = make_optimizers(model, config)
        share_cores()
        if self.device.type == "cuda":
            use_deterministic_kernels(config.deterministic)
        if self.captures:
            keep_rates_on_device(self.optimizers, self.device)
        self.operators = find_operators(config, self.device, say=say)
        model.use(self.operators)
        compiled = self.operators is not TORCH
        self.dtype = precision_dtype(str(config.precision), self.device, compiled=compiled)
        self.autocast = autocast(self.device, self.dtype)
        self.loss_scale = LossScale(self.device) if self.dtype == torch.float16 else None
        self.micro_batch = min(config.batch_size, self.windows_per_step // group.size)
        self.weights = list(model.parameters())
        self.factors = model.factors() if self.captures else []
        self.averages = [w.detach().clone() for w in self.weights] if config.ema_decay else []
        self.captured: dict[Dataset, CapturedFunction] = {}  # the step on each dataset
        self.device_tokens: dict[Dataset, Tensor] = {}

    @property
    def windows_per_step(self) -> int:
        """Sequences that one step of the optimizer sees."""
        return self.config.batch_size * self.config.gradient_accumulation_steps

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of `step`."""
        return self.config.learning_rate * learning_rate_factor(step, self.config)

    def step(
        self, dataset: Dataset, step: int, *, check: Callable[[], None] = no_check
    ) -> StepReport:
        """Do one step on the batch of `step`; weights with a non-finite gradient are left alone.

        A group does it together, each process on its share of the same batch. `check` is called
        between micro-batches and may raise to give the step up. Raises DeviceError where not even
        one sequence fits into memory.
        """
        with self.stopwatch.measure("data"):
            windows = self.group.share(self._draw(dataset, self.windows_per_step, step))
        forget = torch.tensor(1 - min(self.config.ema_decay, (1 + step) / (10 + step)))
        factor = learning_rate_factor(step, self.config)
        set_learning_rates(self.optimizers, factor)
        self.operators.seed(step_seed(self.config.seed, step, self.group.rank))  # dropout's
        if self.captures and isinstance(dataset, TokenDataset):
            check()
            if dataset not in self.captured:
                self.captured[dataset] = CapturedFunction(
                    lambda *inputs: self._work(dataset, *inputs), say=self.say
                )
            figures = self.captured[dataset](windows, forget)
        else:
            figures = self._work(dataset, windows, forget, check)
        return StepReport(step, self.config.learning_rate * factor, figures)

    def _work(
        self,
        dataset: Dataset,
        windows: Tensor,
        forget: Tensor,
        check: Callable[[], None] = no_check,
    ) -> Tensor:
        """Do the step on `windows` and return (loss, gradient norm)."""
        loss = self._in_memory(lambda: self._backward(dataset, windows, check))
        self.group.average(loss, self.weights)
        norm = self._update()
        self._average(forget.to(self.device))
        return torch.stack([loss, norm])

    def _backward(self, dataset: Dataset, windows: Tensor, check: Callable[[], None]) -> Tensor:
        """Add up the gradient over all windows and return the mean loss."""
        self._forget_gradients()
        total = torch.zeros((), device=self.device)
        with self.operators.narrowed(self.factors, self.dtype):
            for idx, targets in self.stopwatch.each("data", self.batches(dataset, windows)):
                check()
                share = len(idx) / len(windows)
                with self.autocast():
                    loss = self.model(idx, targets, loss_only=True) * share
                (loss if self.loss_scale is None else loss * self.loss_scale.value).backward()
                total += loss.detach()
        return total

    def _update(self) -> Tensor:
        """Clip, update the weights, and return the gradient's norm.

        An update with a gradient that is not finite is kept from the weights, without the host
        waiting for the device.
        """
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        scale = 1.0 if self.loss_scale is None else self.loss_scale.value
        norm = self.group.whole(nn.utils.get_total_norm(gradients, foreach=True)) / scale
        found_inf = (~norm.isfinite()).float()
        limit = self.config.grad_clip or float("inf")
        clip = (limit / (norm + 1e-6)).clamp(max=1.0)
        on_gpu = self.device.type == "cuda"  # where the update itself divides
        if not on_gpu:
            torch._foreach_mul_(gradients, clip / scale)
        for optimizer in self.optimizers:
            optimizer.grad_scale = scale / clip if on_gpu else None  # type: ignore[attr-defined]
            optimizer.found_inf = found_inf  # type: ignore[attr-defined]
            optimizer.step()
        if self.loss_scale is not None:
            self.loss_scale.update(found_inf)
        return norm

    @torch.no_grad()
    def _average(self, forget: Tensor) -> None:
        """Move the running mean of the weights, where there is one, towards them by `forget`."""
        if self.averages:
            change = torch._foreach_sub(self.weights, self.averages)  # type: ignore[arg-type]
            torch._foreach_mul_(change, forget)
            torch._foreach_add_(self.averages, change)

    def _forget_gradients(self) -> None:
        for weight in self.weights:
            weight.grad = None

    @torch.no_grad()
    def estimate_loss(self, dataset: Dataset, *, check: Callable[[], None] = no_check) -> float:
        """Return the mean loss, in nats per token, of `eval_iters` batches, always the same.

        A group's processes take turns; in the last round those left over are not counted.
        """
        count, size = self.config.eval_iters, self.group.size
        rounds = math.ceil(count / size)
        numbers = range(self.group.rank, rounds * size, size)
        self.model.eval()
        try:
            losses = [self._evaluate(dataset, number, check) for number in numbers]
        finally:
            self.model.train()
        in_order = self.group.in_turn(torch.stack(losses))[:count]
        return in_order.cpu().double().mean().item()  # MPS has no float64

    def _evaluate(self, dataset: Dataset, number: int, check: Callable[[], None]) -> Tensor:
        """Return the mean loss of evaluation batch `number`."""
        check()
        windows = self._draw(dataset, self.config.batch_size, number, EVALUATION)
        return self._in_memory(lambda: self._forward(dataset, windows))

    def _forward(self, dataset: Dataset, windows: Tensor) -> Tensor:
        """Return the mean loss over `windows`."""
        with self.autocast():
            losses = [
                self.model(idx, targets, loss_only=True) * (len(idx) / len(windows))
                for idx, targets in self.batches(dataset, windows)
            ]
        return torch.stack(losses).sum()

    def _draw(self, dataset: Dataset, count: int, step: int, stream: int = 0) -> Tensor:
        windows = draw_windows(len(dataset), count, seed=self.config.seed, step=step, stream=stream)
        return torch.tensor(windows)

    def batches(self, dataset: Dataset, windows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `windows` as micro-batches (idx, targets) on the device."""
        for part in torch.split(windows, self.micro_batch):
            if self.device.type == "cuda" and isinstance(dataset, TokenDataset):
                yield self._gather(dataset, part.to(self.device, non_blocking=True))
            else:
                idx, targets = get_batch(dataset, part.tolist())
                yield idx.to(self.device), targets.to(self.device)

    def _gather(self, dataset: TokenDataset, starts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the windows at `starts` from the text as it lies on the device."""
        tokens = self.device_tokens.get(dataset)
        if tokens is None:
            tokens = torch.from_numpy(dataset.tokens.astype(np.int32)).to(self.device)
            self.device_tokens[dataset] = tokens
        positions = torch.arange(dataset.block_size + 1, device=self.device)
        batch = tokens[starts[:, None] + positions].long()
        return batch[:, :-1], batch[:, 1:]

    def _in_memory(self, work: Callable[[], Tensor]) -> Tensor:
        """Return what `work` returns; where memory runs out, try again with half the micro-batch.

        The effective batch stays as it is, and so does the result, up to rounding.
        """
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._is_capturing():
                    raise  # a capture that fails is given up, and the step done without
                if not self.group.retries:
                    raise DeviceError(
                        f"out of memory with {self.micro_batch} sequences at a time: halve"
                        " batch_size and double gradient_accumulation_steps"
                    ) from error
                if self.micro_batch == 1:
                    shortage = memory.describe_shortage(self.config, self.device)
                    raise DeviceError(shortage) from error
            self._halve_micro_batch()

    def _is_capturing(self) -> bool:
        return self.device.type == "cuda" and torch.cuda.is_current_stream_capturing()

    def _halve_micro_batch(self) -> None:
        """Free what the failed attempt held and halve the micro-batch."""
        self._forget_gradients()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.micro_batch //= 2
        self.say(
            f"warning: out of memory: going on with {self.micro_batch} sequences at a time instead"
            f" of {self.config.batch_size}; each step still sees {self.windows_per_step}"
        )

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the running mean of the weights, where there is one, into the model for a while."""
        own = [weight.detach().clone() for weight in self.weights] if self.averages else []
        self._copy_into_model(self.averages)
        try:
            yield
        finally:
            self._copy_into_model(own)

    @torch.no_grad()
    def _copy_into_model(self, values: list[Tensor]) -> None:
        if values:
            for weight, value in zip(self.weights, values, strict=True):
                weight.copy_(value)

    def keep_averages(self) -> None:
        """Leave the running mean of the weights, where there is one, in the model for good."""
        self._copy_into_model(self.averages)

    def release(self) -> None:
        """Give back captured steps, which must be gone before their group's communicators are."""
        if self.captured:
            self.synchronize()
            self.captured.clear()

    def synchronize(self) -> None:
        """Wait until the device has done what it was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs of the model, the optimizers and the scaler."""
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "loss_scale": self.loss_scale.state_dict() if self.loss_scale else {},
            "averages": self.averages,
            "micro_batch": self.micro_batch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned, gathered where the group spreads it."""
        self.group.load_weights(self.model, state["model"])
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            self.group.load_moments(optimizer, own)
        if self.captures:
            keep_rates_on_device(self.optimizers, self.device)
        if self.loss_scale:
            self.loss_scale.load_state_dict(state["loss_scale"])
        self.averages = [
            self.group.part(value.to(self.device), own)
            for value, own in zip(state["averages"], self.averages, strict=True)
        ]
        self.micro_batch = state["micro_batch"]


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Return the seed of one step's dropout in the process `rank` of a group."""
    entropy = [seed, step, *([rank] if rank else [])]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)
