"""The key `init_from`: what it names, checked before a run and written as a model file of ours."""

from pathlib import Path
from typing import TYPE_CHECKING

from nanogpt2.base import files
from nanogpt2.base.checksums import write_sealed
from nanogpt2.base.errors import CheckpointError, ConfigError, NanoGPT2Error
from nanogpt2.config.config import SCRATCH, Config

if TYPE_CHECKING:  # torch takes its time, and most runs start from scratch
    from nanogpt2.model.checkpoint import Checkpoint

HUB_NAMES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")


def check_init(config: Config) -> None:
    """Raise NanoGPT2Error with a line for each thing that keeps a run from its `init_from`."""
    if config.init_from == SCRATCH:
        if config.tokenizer == "from_init":
            raise ConfigError("tokenizer: found from_init; allowed: char or byte from scratch")
        return
    from nanogpt2.finetune.start import check_start

    check_start(open_init(config.init_from), config)


def open_init(init_from: str) -> "Checkpoint":
    """Return the model that the key `init_from` names; CheckpointError that names the key."""
    if not files.exists(init_from):
        brings = init_from in HUB_NAMES or "/" in init_from
        advice = f"; `python -m nanogpt2 import {init_from}` downloads it" if brings else ""
        raise CheckpointError(f"init_from: {init_from}: no such file or folder{advice}")
    from nanogpt2.exchange.pretrained import load_pretrained

    try:
        return load_pretrained(init_from)
    except NanoGPT2Error as error:
        raise CheckpointError(f"init_from: {error}") from error


def write_start(init_from: str, model: Path, tokenizer: Path) -> str:
    """Write the model that `init_from` names and its tokenizer; return what it is in a line.

    From scratch the model file is empty and the tokenizer {}. What is written depends on the
    weights and the tokenizer alone, not on the form or the place in which they came.
    """
    if init_from == SCRATCH:
        files.write_bytes(model, b"")
        write_sealed(tokenizer, {})
        return "from scratch: new weights"
    from nanogpt2.exchange.pretrained import describe
    from nanogpt2.model.checkpoint import hash_weights, save_checkpoint

    start = open_init(init_from)
    weights = start.model.state_dict()
    save_checkpoint(
        model,
        weights,
        start.model.config,
        tokenizer=start.tokenizer,
        origin={"weights": hash_weights(weights)},
    )
    write_sealed(tokenizer, start.tokenizer.to_dict() if start.tokenizer else {})
    return describe(init_from, start)
