"""A model without memory has the names and shapes of one with it."""

import subprocess
from pathlib import Path

import pytest
import torch
import warm
from variants import VARIANTS

from nanogpt2.config.config import Config, get_config
from nanogpt2.model.checkpoint import save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.model.shapes import make_shapes


@pytest.mark.parametrize("name", VARIANTS)
def test_names_and_shapes_are_those_of_the_model(tiny: Config, name: str) -> None:
    config = get_config({**tiny.to_dict(), **VARIANTS[name]})
    state = torch.get_rng_state()
    found, expected = (model.state_dict() for model in (make_shapes(config), GPT(config)))
    assert [(key, value.shape) for key, value in found.items()] == [
        (key, value.shape) for key, value in expected.items()
    ]
    assert all(value.is_meta for value in found.values())
    torch.set_rng_state(state)
    make_shapes(config)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_file_is_opened_and_continued_without_the_import_of_dynamo(tiny: Config) -> None:
    save_checkpoint(Path("m.pt"), GPT(tiny).state_dict(), tiny, tokenizer=None, origin={})
    lines = [
        "import sys, torch",
        "assert 'torch._dynamo' not in sys.modules",
        "from pathlib import Path",
        "from nanogpt2 import load_checkpoint",
        "model = load_checkpoint(Path('m.pt'), device=torch.device('cpu')).model",
        "model.generate(torch.zeros(1, 1, dtype=torch.long), 30)",
        "sys.exit('torch._dynamo' in sys.modules)",
    ]
    subprocess.run([warm.executable(), "-c", "\n".join(lines)], check=True)
