"""LoRA: what trains, and that it ends as an ordinary model."""

import copy

import pytest
import torch
from variants import VARIANTS, warmed

from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.finetune.lora import add_lora, merge_lora, merged
from nanogpt2.train.trainer import Trainer

MATRIX = "h.0.mlp.c_fc.weight"


def lora(config: Config, **changes: object) -> Config:
    return get_config(config, lora_rank=2, learning_rate=1e-2, weight_decay=0.0, **changes)


@pytest.mark.parametrize("variant", ["gpt2", "modern", "modern, some"])
def test_it_starts_as_the_model_it_changes(tiny: Config, variant: str) -> None:
    config = lora(tiny, **VARIANTS[variant])
    model = warmed(config)
    idx = torch.randint(config.vocab_size, (2, config.block_size))
    before = model(idx)
    add_lora(model, config)
    assert torch.equal(model(idx), before)


def test_only_its_own_weights_train(tiny: Config, text: str) -> None:
    config = lora(tiny)
    model = warmed(config)
    before = copy.deepcopy(model.state_dict())
    data = CharDataset(text, config.block_size)
    Trainer(model, config).train(data, data)
    changed = {name for name, weight in model.state_dict().items() if weight.ne(before[name]).any()}
    matrices = {
        f"{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert changed == {f"h.{n}.{name}" for n in range(config.n_layer) for name in matrices}


def test_a_change_has_its_rank(tiny: Config, text: str) -> None:
    config = lora(tiny)
    model = warmed(config)
    before = model.state_dict()[MATRIX].clone()
    data = CharDataset(text, config.block_size)
    Trainer(model, config).train(data, data)
    singular = torch.linalg.svdvals((model.state_dict()[MATRIX] - before).double())
    assert singular[1] > 1e-6 * singular[0]
    assert singular[2] < 1e-5 * singular[0]


def test_it_ends_as_an_ordinary_model_that_computes_what_was_trained(
    tiny: Config, text: str
) -> None:
    config = lora(tiny, ema_decay=0.5)
    model = GPT(config)
    names = list(model.state_dict())
    data = CharDataset(text, config.block_size)
    record = Trainer(model, config).train(data, data)
    assert list(model.state_dict()) == names
    assert set(record.best_weights) == set(names)
    assert all(weight.requires_grad for weight in model.parameters())
    last = record.history[-1]["val_loss"]
    assert last < record.history[0]["val_loss"]


def test_weights_merged_by_name_are_those_merged_in_the_model(tiny: Config) -> None:
    config = lora(tiny)
    model = warmed(config)
    add_lora(model, config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight))
    by_name = merged(model.state_dict())
    merge_lora(model)
    for name, weight in model.state_dict().items():
        assert torch.equal(by_name[name], weight), name


def test_it_computes_the_matrix_and_two_thin_ones(tiny: Config) -> None:
    config = lora(tiny, bias=False)
    model = warmed(config)
    before = model.state_dict()[MATRIX].clone()
    add_lora(model, config)
    layer = model.get_submodule(MATRIX.removesuffix(".weight"))
    added = {name: weight for name, weight in layer.named_parameters() if weight.requires_grad}
    down, up = (added[f"parametrizations.weight.0.{name}"] for name in ("down", "up"))
    torch.nn.init.normal_(up)
    x = torch.randn(3, config.n_embd)
    expected = x @ before.T + 2.0 * (x @ down.T) @ up.T
    torch.testing.assert_close(layer(x), expected)
