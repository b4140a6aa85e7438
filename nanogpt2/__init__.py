"""nanoGPT2: GPT-2 style language models on your own text, reproducibly.

What people use comes from here, and is imported when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanogpt2.config.config import Config, get_config
    from nanogpt2.exchange.incoming.pretrained import load_pretrained
    from nanogpt2.model.checkpoint import load_checkpoint
    from nanogpt2.model.gpt import GPT
    from nanogpt2.sample.continuing import continue_tokens
    from nanogpt2.sample.generate import generate
    from nanogpt2.tokens.dataset import CharDataset, TokenDataset
    from nanogpt2.train.finetune.start import start_from
    from nanogpt2.train.trainer import Trainer

__version__ = "0.1.0"
__all__ = [
    "GPT",
    "CharDataset",
    "Config",
    "TokenDataset",
    "Trainer",
    "continue_tokens",
    "generate",
    "get_config",
    "load_checkpoint",
    "load_pretrained",
    "start_from",
]
_ROOMS = {
    "GPT": "model.gpt",
    "CharDataset": "tokens.dataset",
    "Config": "config.config",
    "TokenDataset": "tokens.dataset",
    "Trainer": "train.trainer",
    "continue_tokens": "sample.continuing",
    "generate": "sample.generate",
    "get_config": "config.config",
    "load_checkpoint": "model.checkpoint",
    "load_pretrained": "exchange.incoming.pretrained",
    "start_from": "train.finetune.start",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'nanogpt2' has no attribute '{name}'")
    return getattr(import_module(f"nanogpt2.{_ROOMS[name]}"), name)
