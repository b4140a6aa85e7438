"""A training that ends before a step, as when its process does."""

from collections.abc import Sequence

from nanogpt2.config.config import Config
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.distil.teachers import Teacher
from nanogpt2.train.record import TrainingRecord
from nanogpt2.train.trainer import Trainer


class CrashError(Exception):
    """Stands for the end of the process: nothing catches it."""


def train(
    config: Config,
    text: str,
    teachers: Sequence[Teacher] | None = None,
    *,
    crash: int | None = None,
    model: GPT | None = None,
) -> tuple[Trainer, TrainingRecord]:
    """Train `model`, a new one by default, on `text`; with `crash`, raise CrashError before it."""
    trainer = Trainer(model or GPT(config), config, teachers)
    step, data = trainer.stepper.step, CharDataset(text, config.block_size)

    def crashing(dataset: CharDataset, number: int, **options: object) -> object:
        if number == crash:
            raise CrashError
        return step(dataset, number, **options)  # type: ignore[arg-type]

    trainer.stepper.step = crashing  # type: ignore[method-assign, assignment]
    return trainer, trainer.train(data, data)
