"""What ensembles of trained models give: the loss of the mean of the first 2, 3, ... of them.

The mean's probability of a token is the mean of what each model gives that token, so that each
model is read once, whatever the number of ensembles, and one is in memory at a time.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from nanogpt2.config.config import Config
from nanogpt2.device.device import find_device
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.experiments.kept import Kept, data_of
from nanogpt2.model.checkpoint import load_checkpoint
from nanogpt2.tokens.dataset import load_prepared_tokenizer, load_tokens

Losses = npt.NDArray[np.float64]


def ensemble_losses(models: Sequence[Kept], config: Config, split: str) -> list[float]:
    """Return the loss, in nats per token, of the first model, of the first two, ... of all.

    They are of the `split` of the data of the first, with the settings of `evaluate` in `config`.
    """
    losses, total = list[float](), np.zeros(0)
    for count, model in enumerate(models, start=1):
        nats = token_losses(model, models[0], config, split)
        total = -nats if count == 1 else np.logaddexp(total, -nats)  # log of the summed p
        losses.append(math.log(count) - float(total.mean()))
    return losses


def token_losses(model: Kept, data: Kept, config: Config, split: str) -> Losses:
    """Return the loss in nats of each token of a `split`, in an order that all models share."""
    found = list[Tensor]()
    knobs, loaded = config.evaluate, load_checkpoint(model.model, device=find_device(config.device))
    with data_of(data) as folder:
        evaluate_tokens(
            loaded.model,
            load_tokens(folder, split),
            load_prepared_tokenizer(folder),
            batch_size=knobs.batch_size,
            stride=knobs.stride,
            max_tokens=knobs.max_tokens,
            name=f"{split} by {model.name}",
            take=found.append,
        )
    return np.concatenate([each.numpy() for each in found])
