"""The other side of the speed benchmarks: a checkout of karpathy/nanoGPT with our weights in it."""

import importlib.util
from pathlib import Path
from typing import Any

from nanogpt2.model.gpt import GPT

SHAPE = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "bias")


def load_nanogpt(path: Path) -> Any:
    """Return nanoGPT's module `model`."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", path / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_theirs(nanogpt: Any, ours: GPT) -> Any:
    """Return nanoGPT's model of the shape, dropout and weights of `ours`."""
    shape = {name: ours.config[name] for name in SHAPE}
    theirs = nanogpt.GPT(nanogpt.GPTConfig(**shape, dropout=ours.config.dropout))
    theirs.load_state_dict(
        {f"transformer.{k}": v for k, v in ours.state_dict().items()}, strict=False
    )
    theirs.lm_head.weight = theirs.transformer.wte.weight
    return theirs
