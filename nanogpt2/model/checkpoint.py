"""Model files: weights, configuration, tokenizer and origin, as plain tensors and plain data.

They are written for `torch.load(..., weights_only=True)`, which runs no code from the file.
"""

import hashlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanogpt2.base.screen.screen import phase, say
from nanogpt2.base.system import files
from nanogpt2.base.system.checksums import hash_file
from nanogpt2.base.system.errors import CheckpointError, ConfigError
from nanogpt2.base.system.words import name_some
from nanogpt2.config.config import Config, make_config
from nanogpt2.device.device import find_device
from nanogpt2.model.archive import read_archive, write_archive
from nanogpt2.model.gpt import GPT, WRAPPERS
from nanogpt2.model.shapes import make_shapes
from nanogpt2.tokens.dataset import load_prepared_tokenizer
from nanogpt2.tokens.tokenizer import Tokenizer, load_tokenizer, read_tokenizer

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """A model file that was read: the model in evaluation mode, and what came with it."""

    model: GPT
    tokenizer: Tokenizer | None  # None in a file saved by hand without one
    origin: dict[str, Any]  # iteration, losses, hash of the data


def save_checkpoint(
    path: str | Path,
    state_dict: Mapping[str, Tensor],
    config: Config,
    *,
    tokenizer: Tokenizer | None,
    origin: Mapping[str, Any],
) -> None:
    """Write a model file whose bytes depend on its content alone."""
    content = {
        "format_version": FORMAT_VERSION,
        "model_state_dict": {name: value.detach().cpu() for name, value in state_dict.items()},
        "config": config.resolved().training_dict(),  # whatever a null will mean one day
        "tokenizer": tokenizer.to_dict() if tokenizer else None,
        "origin": dict(origin),
    }
    save_tensors(path, content)


def hash_weights(
    weights: Mapping[str, Tensor], *, whole: Callable[[Tensor], Tensor] = Tensor.detach
) -> str:
    """Return the SHA-256 of the names, shapes and bytes of `weights`, in the order of their names.

    It is the same in whatever file they come. `whole` joins the parts of each weight.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        weight = whole(weights[name]).detach().cpu().contiguous()
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.numpy().data)
    return digest.hexdigest()


def save_trained(
    weights: Mapping[str, Mapping[str, Tensor]],
    config: Config,
    data: str | Path,
    origin: Mapping[str, Any],
) -> None:
    """Write NAME_model.pt for each state dict of `weights`, trained on the folder `data`."""
    tokenizer = load_prepared_tokenizer(data)  # which looks whether dataset.json is whole
    origin = {"dataset": hash_file(Path(data, "dataset.json")), **origin}
    for name, state_dict in weights.items():
        path = Path(config.checkpoint_dir) / f"{name}_model.pt"
        save_checkpoint(path, state_dict, config, tokenizer=tokenizer, origin=origin)


def save_tensors(path: str | Path, content: Mapping[str, Any]) -> str:
    """Write plain data and tensors whole or not at all; return the checksum that the file carries.

    The bytes depend on `content` alone.
    """
    with files.replacing(path) as file:
        return write_archive(file, content)


def load_tensors(path: str | Path) -> dict[str, Any]:
    """Return the plain data and tensors in a file; CheckpointError where it is damaged or none.

    No code from the file is run, and no more memory is taken than the file has bytes.
    """
    try:
        with phase(f"reading {path}"):
            content = read_archive(files.as_path(path))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file; `dvc repro train` makes it") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(f"{path}: refused: it is not plain tensors and data") from error
    except (zipfile.BadZipFile, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged, or not a checkpoint") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: not a checkpoint: it holds no dictionary")
    return content


def load_checkpoint(path: str | Path, *, device: str | torch.device) -> Checkpoint:
    """Return the model in `path`, on `device`; it also reads `{model_state_dict, config}` files.

    A device in words is found as the key `device` has it: auto, cpu, cuda or mps.
    Raises CheckpointError with one line where the file is not such a one.
    """
    if isinstance(device, str):
        device = find_device(device)
    path = Path(path)
    content = load_tensors(path)
    version = content.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format version {version}, and this code reads {FORMAT_VERSION}"
        )
    for key in ("model_state_dict", "config"):
        if not isinstance(content.get(key), dict):
            raise CheckpointError(f"{path}: not a model file: it holds no {key}")
    weights = without_wrappers(content["model_state_dict"])
    model = build_model(path, content["config"], weights)
    data = content.get("tokenizer")
    tokenizer = load_tokenizer(data) if data else None
    return Checkpoint(model.to(device).eval(), tokenizer, content.get("origin") or {})


def tokenizer_of(checkpoint: Checkpoint, fallback: str | Path) -> Tokenizer:
    """Return the checkpoint's tokenizer; where it holds none, that in the file `fallback`."""
    if checkpoint.tokenizer is not None:
        return checkpoint.tokenizer
    if not files.exists(fallback):
        raise CheckpointError(
            "the checkpoint holds no tokenizer: give --tokenizer the tokenizer.json of its text"
        )
    tokenizer = read_tokenizer(fallback)
    if tokenizer.size > checkpoint.model.config.vocab_size:
        raise CheckpointError(f"{fallback}: more tokens than the checkpoint's vocab_size")
    say(f"the checkpoint holds no tokenizer: using {fallback}")
    return tokenizer


def build_model(path: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> GPT:
    """Return the model that `config` describes with `weights`; CheckpointError, naming `path`."""
    try:
        model = make_shapes(make_config(config, name=f"{path}: config"))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error
    expected = model.state_dict()
    wrong = sorted(set(expected) ^ set(weights)) or [
        name for name, value in expected.items() if not _fits(weights[name], value)
    ]
    if wrong:
        raise CheckpointError(
            f"{path}: weights do not fit its configuration: {name_some(wrong, 3)}"
        )
    exact = {name: weight.float() for name, weight in weights.items()}  # also of 16 or 8 bits
    model.load_state_dict(exact, assign=True)
    return model


def without_wrappers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `weights` by the model's own names, as torch.compile and DDP lengthen them."""
    prefixes = tuple(f"{name}." for name in WRAPPERS)
    plain = {}
    for name, weight in weights.items():
        while name.startswith(prefixes):
            name = name.partition(".")[2]
        plain[name] = weight
    return plain


def _fits(weight: Any, expected: Tensor) -> bool:
    """Return whether `weight` is a float tensor of the right shape that holds all its numbers."""
    return (
        isinstance(weight, Tensor)
        and weight.layout == torch.strided
        and weight.shape == expected.shape
        and weight.is_floating_point()
        and weight.untyped_storage().nbytes() >= weight.numel() * weight.element_size()
    )
