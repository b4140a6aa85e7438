"""Frozen weights, and learning rates by layer."""

import copy

import pytest
from variants import warmed

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.optimizers.choose import make_optimizers
from nanogpt2.train.trainer import Trainer


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_frozen_weights_stay_as_they_are_and_all_others_move(
    tiny: Config, text: str, optimizer: str
) -> None:
    config = get_config(tiny, freeze=["wte", "h.0", "h.1.mlp.c_fc"], optimizer=optimizer)
    model = warmed(config)
    before = copy.deepcopy(model.state_dict())
    data = CharDataset(text, config.block_size)
    Trainer(model, config).train(data, data)
    for name, weight in model.state_dict().items():
        frozen = name.startswith(("wte.", "h.0.", "h.1.mlp.c_fc."))
        assert weight.equal(before[name]) == frozen, name


def test_a_name_is_not_the_start_of_a_longer_number(tiny: Config) -> None:
    config = get_config(tiny, n_layer=11, freeze=["h.1"])
    model = GPT(config)
    Trainer(model, config)
    frozen = {name[:5] for name, weight in model.named_parameters() if not weight.requires_grad}
    assert frozen == {"h.1.l", "h.1.a", "h.1.m"}  # and not h.10


@pytest.mark.parametrize(
    ("freeze", "words"),
    [
        (["h.9"], r"freeze: found h\.9; allowed: the start of h\.0\.attn"),
        (["wte", "wpe", "h", "ln_f"], "freeze: found wte, wpe, h, ln_f; allowed: what leaves some"),
    ],
)
def test_a_wrong_name_and_freezing_all_are_refused(
    tiny: Config, freeze: list[str], words: str
) -> None:
    config = get_config(tiny, freeze=freeze)
    with pytest.raises(ConfigError, match=words):
        Trainer(GPT(config), config)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_block_has_a_fraction_of_the_next_ones_rate(tiny: Config, optimizer: str) -> None:
    config = get_config(tiny, n_layer=3, layer_decay=0.5, learning_rate=0.8, optimizer=optimizer)
    model = GPT(get_config(config, muon_learning_rate=0.8))
    groups = [
        group
        for each in make_optimizers(model, get_config(config, muon_learning_rate=0.8))
        for group in each.param_groups
    ]
    rates = {id(p): group["peak_lr"] for group in groups for p in group["params"]}
    expected = {"wte": 0.1, "wpe": 0.1, "h.0": 0.2, "h.1": 0.4, "h.2": 0.8, "ln_f": 0.8}
    for name, weight in model.named_parameters():
        (part,) = (part for part in expected if name.startswith(f"{part}."))
        assert rates.pop(id(weight)) == pytest.approx(expected[part])
    assert not rates
