"""Metrics of a language model, from sums over predicted tokens: `summarise` names each."""

import math
from dataclasses import dataclass

from nanogpt2.base.system.files import rounded


@dataclass
class Totals:
    """Sums over predicted tokens."""

    nats: float = 0.0  # summed cross-entropy
    tokens: int = 0
    correct: int = 0  # the most likely token was the right one
    bytes: int = 0  # UTF-8 bytes of the predicted tokens


def summarise(totals: Totals) -> dict[str, float | int]:
    """Return loss (nats per token), perplexity, bits per byte, accuracy (0 .. 1) and counts.

    Bits per byte compare models with different tokenizers: each is charged for the same text.
    """
    loss = totals.nats / totals.tokens
    return {
        "loss": rounded(loss),
        "perplexity": rounded(math.exp(min(loss, 700.0))),  # e^700 is near the largest float
        "bits_per_byte": rounded(totals.nats / math.log(2) / totals.bytes),
        "accuracy": rounded(totals.correct / totals.tokens),
        "tokens": totals.tokens,
        "bytes": totals.bytes,
    }
