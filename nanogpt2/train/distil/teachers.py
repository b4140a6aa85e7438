"""Teachers: trained models that a run follows, read and checked before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nanogpt2.base.system.errors import CheckpointError, ConfigError, DataError, NanoGPT2Error
from nanogpt2.config.config import Config
from nanogpt2.model.checkpoint import hash_weights, load_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import Dataset, load_prepared_tokenizer
from nanogpt2.tokens.tokenizer import Tokenizer
from nanogpt2.train.distil.paths import check_paths
from nanogpt2.train.finetune.start import Start, make_model


@dataclass(frozen=True)
class Teacher:
    """A model that was trained before, its file, its tokenizer, and the SHA-256 of its weights."""

    path: str
    model: GPT
    tokenizer: Tokenizer
    sha256: str


@dataclass(frozen=True)
class TaughtStart(Start):
    """A model to train, and the teachers that it follows."""

    teachers: tuple[Teacher, ...] = ()


def make_start(config: Config, init: str | Path, data: str | Path) -> TaughtStart:
    """Return the model to train as `make_model` does, and the teachers that `config` names.

    Raises what `load_teachers` does, and DataError where a teacher has other tokens than the
    prepared folder `data`.
    """
    start = make_model(config, init, data)
    teachers = load_teachers(start.config)
    if not teachers:
        return TaughtStart(start.model, start.notes, start.origin)
    check_tokens(teachers, load_prepared_tokenizer(data))
    origin = {**start.origin, "teachers": [each.sha256 for each in teachers]}
    return TaughtStart(start.model, [*start.notes, describe(teachers, config)], origin, teachers)


def load_teachers(config: Config) -> tuple[Teacher, ...]:
    """Return the teachers of a run of `config`, none where they have no weight in the loss.

    Raises ConfigError and CheckpointError, with a line for each that is none or too short.
    """
    if not config.teacher_weight:
        return ()
    check_paths(config)
    found, lines = [], []
    for path in config.teachers:
        try:
            found.append(_load(path, config))
        except NanoGPT2Error as error:
            lines.append(f"teachers: {error}")
    if lines:
        raise CheckpointError("\n".join(lines))
    return tuple(found)


def _load(path: str, config: Config) -> Teacher:
    loaded = load_checkpoint(path, device="cpu")
    model, tokenizer = loaded.model, loaded.tokenizer
    if tokenizer is None:
        raise CheckpointError(f"{path}: it holds no tokenizer, so its tokens are not known")
    # a rotary model computes longer contexts, but has not learnt from any
    if model.config.block_size < config.block_size:
        raise ConfigError(
            f"{path}: found block_size {model.config.block_size}; allowed: at least"
            f" {config.block_size}, the run's"
        )
    weights = model.state_dict()
    rows = min(config.vocab_size, model.config.vocab_size)
    if tokenizer.size > rows:
        raise ConfigError(
            f"{path}: found a tokenizer of {tokenizer.size:,} tokens; allowed: at most {rows:,},"
            " the vocab_size of the run and its own"
        )
    if bad := [name for name, weight in weights.items() if not weight.isfinite().all()]:
        raise CheckpointError(f"{path}: its weights are not all finite numbers: {bad[0]}")
    return Teacher(path, model.requires_grad_(False), tokenizer, hash_weights(weights))


def check_tokens(teachers: Sequence[Teacher], tokenizer: Tokenizer) -> None:
    """Raise DataError with a line for each teacher that has other tokens than `tokenizer`."""
    lines = [
        f"teachers: {each.path}: found a {each.tokenizer.name} tokenizer of"
        f" {each.tokenizer.size:,} tokens; allowed: the run's own, {tokenizer.name} of"
        f" {tokenizer.size:,}, with each token the same"
        for each in teachers
        if each.tokenizer.to_dict() != tokenizer.to_dict()
    ]
    if lines:
        raise DataError("\n".join(lines))


def check_together(teachers: Sequence[Teacher], dataset: Dataset) -> None:
    """Raise DataError where teachers have other tokens than one another, or than `dataset`.

    That of a dataset is known where it has a `tokenizer`.
    """
    if teachers:
        check_tokens(teachers, getattr(dataset, "tokenizer", teachers[0].tokenizer))


def describe(teachers: Sequence[Teacher], config: Config) -> str:
    """Return in a line which models the loss follows, and how much of it."""
    names = ", ".join(each.path for each in teachers)
    in_turn = 0 < config.teachers_per_step < len(teachers)
    turns = f", {config.teachers_per_step} of them in each step" if in_turn else ""
    return f"following {names}: {config.teacher_weight:g} of the loss{turns}"
