"""Trained weights to start from: a model file of ours, or a folder in Hugging Face's form."""

from pathlib import Path

import torch

from nanogpt2.base.system import files
from nanogpt2.base.system.checksums import check_files
from nanogpt2.base.system.errors import CheckpointError, ConfigError
from nanogpt2.device.device import find_device
from nanogpt2.exchange.incoming.architectures import read_architecture
from nanogpt2.exchange.incoming.folder import read_config, read_weights
from nanogpt2.exchange.incoming.names import RECORD
from nanogpt2.model.checkpoint import Checkpoint, build_model, load_checkpoint
from nanogpt2.tokens.files import read_tokenizer


def load_pretrained(path: str | Path, *, device: str | torch.device = "cpu") -> Checkpoint:
    """Return the model in a file of ours or a folder in Hugging Face's form, and its tokenizer.

    CheckpointError with one line where it is neither, or computes what our model does not;
    DataError where a file of an export of ours is not as it was written.
    """
    path = files.as_path(path)
    if not path.is_dir():
        return load_checkpoint(path, device=device)
    if files.exists(path / RECORD):
        check_files(path, RECORD)
    tensors = read_weights(path)
    try:
        keys, weights = read_architecture(read_config(path), tensors)
    except (CheckpointError, ConfigError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    model = build_model(path, keys, weights)
    tokenizer = read_tokenizer(path)
    if tokenizer is not None and tokenizer.size > model.config.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {tokenizer.size} tokens, and the weights have rows for"
            f" {model.config.vocab_size}"
        )
    place = find_device(device) if isinstance(device, str) else device
    return Checkpoint(model.to(place).eval(), tokenizer, {})


def describe(name: str, start: Checkpoint) -> str:
    """Return a line on a model: its size, shape, positions and tokenizer."""
    config, known = start.model.config, start.tokenizer
    tokens = f"{known.name} tokenizer of {known.size:,}" if known else "no tokenizer"
    return (
        f"{name}: {start.model.count_parameters():,} parameters, {config.n_layer} layers of"
        f" {config.n_embd}, block_size {config.block_size}, {tokens}"
    )
