"""In: batches of tokens. Out: logits and loss; weights and their file. operators.py is the seam
to fast device code, of which this room knows nothing."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanogpt2.model.gpt import GPT as GPT


def __getattr__(name: str) -> Any:  # the training guide's `from nanogpt2.model import GPT`
    if name not in ("GPT",):
        raise AttributeError(f"module 'nanogpt2.model' has no attribute '{name}'")
    from nanogpt2.model import gpt

    return getattr(gpt, name)
