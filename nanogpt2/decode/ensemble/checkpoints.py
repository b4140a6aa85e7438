"""Several model files as one model: they must have the same tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from nanogpt2.base.system.errors import CheckpointError
from nanogpt2.decode.ensemble.ensemble import Ensemble
from nanogpt2.model import checkpoint as files
from nanogpt2.model.checkpoint import Checkpoint
from nanogpt2.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Together:
    """Several model files that were read as one model, and the tokenizer of all."""

    model: Ensemble
    tokenizer: Tokenizer


Trained: TypeAlias = Checkpoint | Together


def load_checkpoints(
    paths: Sequence[Path], *, device: str | torch.device, tokenizer: Path
) -> Trained:
    """Return the model in one file, or the ensemble of several, on `device`; see `combine`."""
    loaded = [(path, files.load_checkpoint(path, device=device)) for path in paths]
    return combine(loaded, tokenizer)


def combine(read: Sequence[tuple[Path, Checkpoint]], tokenizer: Path) -> Trained:
    """Return one model as it is, and several as their ensemble.

    The file `tokenizer` is read for those that hold none. CheckpointError names two files that
    have different tokenizers.
    """
    (first, checkpoint), *others = read
    if not others:
        return checkpoint
    known = files.tokenizer_of(checkpoint, tokenizer)
    for path, other in others:
        if files.tokenizer_of(other, tokenizer).to_dict() != known.to_dict():
            raise CheckpointError(
                f"{first} and {path}: trained with different tokenizers; allowed in an ensemble:"
                " models of one tokenizer"
            )
    return Together(Ensemble([checkpoint.model, *(other.model for _, other in others)]), known)


def tokenizer_of(trained: Trained, fallback: Path) -> Tokenizer:
    """Return the tokenizer of one model or several; of one that holds none, that in `fallback`."""
    if isinstance(trained, Together):
        return trained.tokenizer
    return files.tokenizer_of(trained, fallback)
