"""What the commands on a trained model share: the options that name it, and opening it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nanogpt2.model.checkpoint import Checkpoint
    from nanogpt2.tokens.tokenizer import Tokenizer


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options that say which model reads or writes, and where."""
    default = "checkpoints/best_model.pt"
    for option in (
        click.option("--device", default="auto", help="auto, cpu, cuda or mps."),
        click.option(
            "--tokenizer",
            type=Path,
            default="data/prepared/tokenizer.json",
            help="Read where the model file holds no tokenizer.",
        ),
        click.option("--checkpoint", type=Path, default=default, help="Model file."),
    ):
        command = option(command)
    return command


def open_model(checkpoint: Path, tokenizer: Path, device: str) -> "tuple[Checkpoint, Tokenizer]":
    """Return the model on the device, and its tokenizer."""
    from nanogpt2.device.device import find_device
    from nanogpt2.model.checkpoint import load_checkpoint, tokenizer_of

    loaded = load_checkpoint(checkpoint, device=find_device(device))
    return loaded, tokenizer_of(loaded, tokenizer)
