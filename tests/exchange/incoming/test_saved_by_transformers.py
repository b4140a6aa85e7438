"""A GPT-2 as transformers saves it, in any of its ways, is read from its folder and is the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from nanogpt2.exchange.incoming.pretrained import load_pretrained


def saved(folder: Path, *, dtype: torch.dtype, shards: str, **settings: Any) -> Any:
    """Save a random model; return it as transformers reads it again, in float32."""
    torch.manual_seed(0)
    settings |= {"vocab_size": 300, "n_positions": 64, "n_embd": 48, "n_layer": 3, "n_head": 4}
    settings |= {"bos_token_id": None, "eos_token_id": None, "initializer_range": 0.2}
    model: Any = GPT2LMHeadModel(GPT2Config(**settings))
    model.to(dtype)
    model.save_pretrained(folder, max_shard_size=shards)
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return theirs.train(False)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("shards", ["5GB", "100KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_computes_the_same(tmp_path: Path, dtype: torch.dtype, shards: str, tied: bool) -> None:
    theirs = saved(tmp_path, dtype=dtype, shards=shards, tie_word_embeddings=tied)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shards == "100KB")
    model = load_pretrained(tmp_path).model
    assert model.config.tied_head == tied
    idx = torch.randint(300, (2, 64), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert (model(idx) - theirs(idx).logits).abs().max() < 1e-4
