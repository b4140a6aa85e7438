"""Fine-tuning on a GPU, where a step is captured as a graph and matrices are cast together."""

import copy

import pytest
import torch
from variants import warmed

from nanogpt2.config.config import Config, get_config
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
WAYS = [{"lora_rank": 4}, {"freeze": ["wte", "h.0"]}, {"freeze": ["h"]}, {"layer_decay": 0.5}]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_it_learns_what_it_learns_on_a_cpu(
    tiny: Config, text: str, way: dict[str, object], precision: str
) -> None:
    losses, changed = [], []
    for device in ("cpu", "cuda"):
        config = get_config(
            tiny, **way, device=device, n_embd=64, n_head=2, max_iters=12, learning_rate=3e-3,
            dropout=0.0, precision=precision if device == "cuda" else "fp32", eval_iters=4,
        )  # fmt: skip
        model = warmed(config)
        before = copy.deepcopy(model.state_dict())
        data = CharDataset(text, config.block_size)
        losses.append(Trainer(model, config).train(data, data).history[-1]["val_loss"])
        after = {name: weight.cpu() for name, weight in model.state_dict().items()}
        changed.append({name for name, weight in after.items() if not weight.equal(before[name])})
    assert changed[0] == changed[1]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3 if precision == "fp32" else 1e-2)
