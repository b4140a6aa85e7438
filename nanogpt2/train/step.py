"""One step of the optimizer: forward and backward over micro-batches, then clip and update."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nanogpt2.base.system.heap import keep_memory, release_memory
from nanogpt2.config.config import Config
from nanogpt2.device.device import (
    autocast,
    find_device,
    precision_dtype,
    use_deterministic_kernels,
)
from nanogpt2.device.graph import CapturedFunction
from nanogpt2.device.group import SINGLE, Group
from nanogpt2.device.threads import computing_with, share_cores
from nanogpt2.device.tree import TreeSum
from nanogpt2.kernels.choose import find_operators
from nanogpt2.model.gpt import GPT
from nanogpt2.model.operators import TORCH
from nanogpt2.report.stopwatch import Stopwatch
from nanogpt2.tokens.dataset import Dataset, TokenDataset
from nanogpt2.train.batches import Batches
from nanogpt2.train.distil.ahead import LookingAhead, add_ahead
from nanogpt2.train.distil.follow import make_objective
from nanogpt2.train.distil.teachers import Teacher, load_teachers
from nanogpt2.train.finetune.trainable import choose_trainable
from nanogpt2.train.losses import StepReport
from nanogpt2.train.micro_batch import MicroBatch
from nanogpt2.train.optimizers.choose import make_optimizers
from nanogpt2.train.optimizers.ema import EMA
from nanogpt2.train.optimizers.loss_scale import LossScale
from nanogpt2.train.optimizers.rates import (
    keep_rates_on_device,
    learning_rate_factor,
    set_learning_rates,
)
from nanogpt2.train.optimizers.update import clip_and_step
from nanogpt2.train.shards import Shards

Check = Callable[[], None]


def no_check() -> None:
    """Check nothing."""


class Stepper:
    """A model, its optimizers and the EMA of its weights on a device, a step at a time.

    `say` receives a line when memory runs out and the micro-batch is halved; `stopwatch` tells
    the time in which batches are made; `group` shares the batch, and perhaps the model, among
    processes. Without `teachers` those that `config` names are read.
    """

    def __init__(
        self,
        model: GPT,
        config: Config,
        teachers: Sequence[Teacher] | None = None,
        *,
        say: Callable[[str], None] = print,
        stopwatch: Stopwatch | None = None,
        group: Group = SINGLE,
    ) -> None:
        self.config = config = config.resolved()
        self.group, self.say, self.stopwatch = group, say, stopwatch or Stopwatch()
        self.device = find_device(config.device)
        self.captures = self.device.type == "cuda" and group.captures
        self.model = model
        self.teachers = load_teachers(config) if teachers is None else tuple(teachers)
        choose_trainable(model, config)
        add_ahead(model, config)
        share_cores()
        keep_memory()
        if self.device.type == "cuda":
            use_deterministic_kernels(config.deterministic)
        self.operators = find_operators(config, self.device, say=say, group=group)
        compiled = self.operators is not TORCH
        self.dtype = precision_dtype(str(config.precision), self.device, compiled=compiled)
        self.autocast = autocast(self.device, self.dtype)
        group.place(model, branches(model), self.device, self.dtype)
        model.use(self.operators)
        self.optimizers = make_optimizers(model, config)
        if self.captures:
            keep_rates_on_device(self.optimizers, self.device)
        self.objective = make_objective(
            *(self.teachers, config, self.operators, self.device, self.dtype), say=say, group=group
        )
        if config.mtp_weight:
            self.objective = LookingAhead(self.objective, config, self.device)
        self.loss_scale = LossScale(self.device) if self.dtype == torch.float16 else None
        self.batches = Batches(config.seed, self.device, sampling=config.sampling)
        self.micro_batch = MicroBatch(config, self.device, group, free=self.release, say=say)
        self.trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.weights = list(self.trained.values())
        self.factors = model.factors() if self.captures else []
        self.ema = EMA(self.weights, config.ema_decay)
        self.shards = Shards(config.shards, group, self.weights)
        one_thread = config.shards > 1 and self.device.type == "cpu"  # sums depend on their number
        self.computing = partial(computing_with, 1 if one_thread else 0)
        self.captured: dict[object, CapturedFunction] = {}  # what a step does, on each dataset

    @property
    def windows_per_step(self) -> int:
        """Sequences that one step of the optimizer sees."""
        return self.micro_batch.windows_per_step

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of `step`."""
        return self.config.learning_rate * learning_rate_factor(step, self.config)

    # --- A step, from drawing its batch to the update ---

    def step(
        self, dataset: Dataset, step: int, *, check: Callable[[], None] = no_check
    ) -> StepReport:
        """Do one step on the batch of `step`; weights with a non-finite gradient are left alone.

        A group does it together, each process on its share of the same batch. `check` is called
        between micro-batches and may raise to give the step up. Raises DeviceError where not even
        one sequence fits into memory.
        """
        with self.stopwatch.measure("data"):
            windows = self.group.share(self.batches.draw(dataset, self.windows_per_step, step))
        ema_share = self.ema.share(step)
        set_learning_rates(self.optimizers, learning_rate_factor(step, self.config))
        self.objective.begin(step)
        with self.computing():
            if self.config.shards == 1:
                self.operators.seed(step_seed(self.config.seed, step, self.group.rank))  # dropout's
                figures = self._run(self._update, dataset, check, windows, ema_share)
            else:
                tree = TreeSum()
                for number, part in self.shards.number(windows):
                    self.operators.seed(step_seed(self.config.seed, step, number))
                    tree.add(self._run(self._shard, dataset, check, part))
                figures = self._run(self._update_by, dataset, check, tree.total(), ema_share)
        return StepReport(step, self.learning_rate(step), figures)

    def _run(
        self, work: Callable[..., Tensor], dataset: Dataset, check: Check, *inputs: Tensor
    ) -> Tensor:
        """Return what `work` does on `dataset` with `inputs`, on a GPU as a CUDA graph."""
        if not self.captures or not isinstance(dataset, TokenDataset):
            return work(dataset, check, *inputs)
        check()
        key = dataset, work.__name__, self.objective.turn
        if key not in self.captured:
            first = next(iter(self.captured.values()), None)  # whose memory serves all
            self.captured[key] = CapturedFunction(partial(work, dataset, no_check), self.say, first)
        return self.captured[key](*inputs)

    def _update(self, dataset: Dataset, check: Check, windows: Tensor, ema_share: Tensor) -> Tensor:
        """Update the weights by `windows`, and their EMA; return (loss, gradient norm)."""
        loss = self.micro_batch.fit(lambda: self._backward(dataset, check, windows, len(windows)))
        self.group.average(loss, self.weights)
        return self._move(loss, ema_share)

    def _shard(self, dataset: Dataset, check: Check, windows: Tensor) -> Tensor:
        """Return what the shard that has `windows` adds to the gradients and the loss: (n,)."""
        count = self.windows_per_step
        loss = self.micro_batch.fit(lambda: self._backward(dataset, check, windows, count))
        return self.shards.join(loss)

    def _update_by(self, _: Dataset, check: Check, joined: Tensor, ema_share: Tensor) -> Tensor:
        """Update them by what the shards of this process, `joined`, and of all others add up to."""
        self.group.add_up(joined)
        return self._move(self.shards.part(joined), ema_share)

    def _move(self, loss: Tensor, ema_share: Tensor) -> Tensor:
        """Move the weights by their gradients, and the EMA; return (`loss`, gradient norm)."""
        limit = self.config.grad_clip
        norm = clip_and_step(self.optimizers, self.weights, limit, self.loss_scale, self.group)
        self.ema.update(ema_share.to(self.device))
        return torch.stack([loss, norm])

    def _backward(self, dataset: Dataset, check: Check, windows: Tensor, count: int) -> Tensor:
        """Add up the gradient over `windows`, of `count` in all; return their part of the loss."""
        self._forget_gradients()
        total = torch.zeros((), device=self.device)
        batches = self.batches.read(dataset, windows, self.micro_batch.size)
        with self.objective.cast_weights(self.operators, self.factors, self.dtype):
            for idx, targets in self.stopwatch.each("data", batches):
                check()
                with self.autocast():
                    loss = self.objective.loss(self.model, idx, targets)
                    loss = loss * (len(idx) / count)
                scaled = loss if self.loss_scale is None else loss * self.loss_scale.value
                scaled.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
        return total

    def _forget_gradients(self) -> None:
        for weight in self.weights:
            weight.grad = None

    # --- The device, and the state of an unfinished run ---

    def release(self) -> None:
        """Give back gradients, steps that were captured, and memory that was freed.

        These must be gone before their group's communicators are, and go with the micro-batch that
        they were captured with: steps that follow have that of a run resumed from their state.
        """
        if self.captured:
            self.synchronize()
            self.captured.clear()
        self._forget_gradients()
        release_memory()

    def synchronize(self) -> None:
        """Wait until the device has done what it was asked."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs of the model, the optimizers, the EMA and the scaler.

        And the configuration, so that the model can be read while the run is not over.
        """
        return {
            "config": self.config.training_dict(),
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "loss_scale": self.loss_scale.state_dict() if self.loss_scale else {},
            "trained": list(self.trained),  # the weights that the EMA is of
            "ema": self.ema.means,
            "micro_batch": self.micro_batch.size,
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
        self.ema.means = [
            self.group.part(value.to(self.device), own)
            for value, own in zip(state["ema"], self.ema.means, strict=True)
        ]
        self.micro_batch.size = state["micro_batch"]


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Return the seed of one step's dropout in the process `rank` of a group."""
    entropy = [seed, step, *([rank] if rank else [])]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def branches(model: GPT) -> list[list[nn.Module]]:
    """Return each block's attention and MLP: products, unlike the norms, use all their weights."""
    return [[block.get_submodule(name) for name in ("attn", "mlp")] for block in model.h]
