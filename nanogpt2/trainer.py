"""The training guide's path to `nanogpt2.train.trainer`."""

from nanogpt2.train.trainer import Trainer

__all__ = ["Trainer"]
