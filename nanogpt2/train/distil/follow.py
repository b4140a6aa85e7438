"""What training computes where it follows teachers: they read each batch, and the loss is mixed."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor

from nanogpt2.config.config import MODEL_KEYS, Config, get_config
from nanogpt2.device.group import SINGLE, Group
from nanogpt2.kernels.choose import find_operators
from nanogpt2.model.gpt import GPT, Criterion
from nanogpt2.model.operators import Operators
from nanogpt2.train.distil.choose import find_loss
from nanogpt2.train.distil.loss import Lesson, Mixture
from nanogpt2.train.distil.teachers import Teacher

# What of a model operators are chosen and checked for: one of its blocks.
OTHER_KEYS = {"vocab_size", "block_size", "n_layer", "tied_head", "logit_softcap"}
SHAPE = {*MODEL_KEYS} - OTHER_KEYS - {"dropout", "attention_dropout"}


class Objective:
    """What training makes smaller: the model's own loss."""

    turn = 0  # steps of one turn do the same, and may be one CUDA graph

    def begin(self, step: int) -> None:
        """Take note that `step` comes next."""

    def loss(self, model: GPT, idx: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of `model`, in nats per token, on a batch (B, T)."""
        return model.loss(idx, targets, self.criterion(model, idx))

    def criterion(self, model: GPT, idx: Tensor) -> Criterion:
        """Return the loss of the hidden states that `model` makes of `idx` (B, T)."""
        return model.operators.cross_entropy

    def cast_weights(
        self, operators: Operators, factors: list[Tensor], dtype: torch.dtype
    ) -> AbstractContextManager[None]:
        """Let `operators` find copies of `factors` in `dtype`, and teachers of their own."""
        return operators.cast_weights(factors, dtype)


class Followed(Objective):
    """The teachers of a run of `config` on `device`, with the run's operators and precision.

    Where a step follows only some, all take turns. A teacher of another shape has operators that
    are chosen for it. Where several processes train, each has all teachers whole. `say` is told why
    operators are torch's.
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        config: Config,
        operators: Operators,
        device: torch.device,
        dtype: torch.dtype,
        *,
        say: Callable[[str], None],
        group: Group = SINGLE,
    ) -> None:
        self.models = [each.model.to(device) for each in teachers]
        self.operators = [
            _choose(model, config, operators, device, say, group) for model in self.models
        ]
        for model, own in zip(self.models, self.operators, strict=True):
            model.use(own)
        n_tokens = teachers[0].tokenizer.size
        self.mixture = Mixture(config.teacher_weight, config.teacher_temperature, n_tokens)
        configs = [model.config for model in self.models]
        self.soft_loss = find_loss(
            *(operators, config, configs, self.mixture, device, dtype), say=say, group=group
        )
        self.turns = share_out(len(self.models), config.teachers_per_step)

    def begin(self, step: int) -> None:
        self.turn = step % len(self.turns)

    def criterion(self, model: GPT, idx: Tensor) -> Criterion:
        with torch.no_grad():
            lessons = [
                Lesson(each.hidden(idx), each.head_weight, float(each.config.logit_softcap or 0))
                for each in (self.models[number] for number in self.turns[self.turn])
            ]
        return partial(self._mix, lessons)

    def _mix(
        self, lessons: list[Lesson], x: Tensor, head: Tensor, targets: Tensor, *, softcap: float
    ) -> Tensor:
        return self.soft_loss(x, head, targets, lessons, softcap=softcap, mixture=self.mixture)

    @contextmanager
    def cast_weights(
        self, operators: Operators, factors: list[Tensor], dtype: torch.dtype
    ) -> Iterator[None]:
        own = {id(operators): (operators, list(factors))}
        for number in self.turns[self.turn]:
            each = self.operators[number]
            own.setdefault(id(each), (each, []))[1].extend(self.models[number].factors())
        with ExitStack() as stack:
            for each, weights in own.values():
                stack.enter_context(each.cast_weights(weights, dtype))
            yield


def share_out(count: int, per_step: int) -> list[list[int]]:
    """Return which of `count` teachers each turn has: `per_step` of them, or all (0).

    Over all turns each has the same share. The loss is linear in the teachers' probabilities, so
    that the mean of its gradients over the turns is the gradient with all teachers.
    """
    size = min(per_step, count) or count
    turns = range(count // math.gcd(count, size))
    return [[(turn * size + number) % count for number in range(size)] for turn in turns]


def _choose(
    model: GPT,
    config: Config,
    operators: Operators,
    device: torch.device,
    say: Callable[[str], None],
    group: Group,
) -> Operators:
    """Return `operators` for a teacher of the run's shape, else such as are chosen for it."""
    shape = {key: model.config.resolved()[key] for key in SHAPE}
    if all(config.resolved()[key] == value for key, value in shape.items()):
        return operators
    return find_operators(get_config(config, **shape), device, say=say, group=group)


def make_objective(
    teachers: Sequence[Teacher],
    config: Config,
    operators: Operators,
    device: torch.device,
    dtype: torch.dtype,
    *,
    say: Callable[[str], None],
    group: Group = SINGLE,
) -> Objective:
    """Return what a run of `config` makes smaller, with `teachers` or none; see `Followed`."""
    if not teachers:
        return Objective()
    return Followed(teachers, config, operators, device, dtype, say=say, group=group)
