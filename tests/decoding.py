"""Models to decode, and what decoding them gives."""

import torch
from torch import Tensor
from variants import VARIANTS, warmed

from nanogpt2.config.config import Config, get_config
from nanogpt2.decode.decoder import Decoder
from nanogpt2.model.gpt import GPT

ODD = {"n_embd": 20, "n_head": 2, "vocab_size": 65, "block_size": 19, "n_layer": 3}
WIDE = {"n_embd": 96, "n_head": 4, "vocab_size": 61, "block_size": 40, "n_layer": 1}


def make_model(tiny: Config, name: str, **changes: object) -> GPT:
    return warmed(get_config({**tiny.to_dict(), **VARIANTS[name], **changes})).eval()


def run(decoder: Decoder, idx: Tensor, lengths: list[int], steps: int) -> Tensor:
    """Return the logits (steps + 1, B, V) after each row's prompt in `idx` and each step."""
    at, rows = torch.tensor(lengths), torch.arange(len(idx))
    encoded = [decoder.encode(idx[row, :length], row) for row, length in enumerate(lengths)]
    decoder.reach(idx.shape[1])
    stepped = [decoder.step(idx[rows, at + step], at + step) for step in range(steps)]
    return torch.stack([torch.stack(encoded), *stepped])
