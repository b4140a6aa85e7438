"""The variants of the model that tests go through."""

import torch

from nanogpt2.config.config import Config
from nanogpt2.model.gpt import GPT

VARIANTS: dict[str, dict[str, object]] = {
    "gpt2": {},
    "modern": {"architecture": "modern"},
    "rotary": {"positions": "rotary"},
    "rms": {"norm": "rms"},
    "qk_norm": {"qk_norm": True},
    "relu2": {"mlp": "relu2"},
    "swiglu": {"mlp": "swiglu"},
    "n_kv_head": {"n_kv_head": 1},
    "untied": {"tied_head": False},
    "zero_init": {"zero_init": True},
    "softcap": {"logit_softcap": 5.0},
    "no bias": {"bias": False},
    "modern, conv": {"architecture": "modern", "mlp_conv": 3},
    "modern, some": {"architecture": "modern", "mlp": "swiglu", "n_kv_head": 1, "tied_head": True},
}


def warmed(config: Config) -> GPT:
    """Return a model whose zero-initialised weights are not zero any more."""
    model = GPT(config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model
