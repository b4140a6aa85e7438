"""The model: GPT-2's function, causality, and a sensible start."""

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from nanogpt2.base.system.errors import ConfigError, DataError
from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.model.operators import TORCH, Computes, Operators

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

SHAPE = {"vocab_size": 65, "block_size": 64, "n_layer": 3, "n_head": 4, "n_embd": 48}


def copy_weights(theirs: "GPT2LMHeadModel", ours: GPT) -> None:
    """Copy GPT-2's weights; its Conv1D layers hold them transposed."""
    weights = {}
    for name in ours.state_dict():
        value = theirs.state_dict()[f"transformer.{name}"]
        conv1d = value.dim() == 2 and not name.startswith(("wte", "wpe"))
        weights[name] = value.t() if conv1d else value
    ours.load_state_dict(weights)


@pytest.fixture(scope="module")
def pair() -> "tuple[GPT2LMHeadModel, GPT]":
    """transformers' GPT-2 with random weights, biases too, and ours with the same."""
    from transformers import GPT2Config, GPT2LMHeadModel  # five seconds, in one worker alone

    torch.manual_seed(1)
    theirs = GPT2LMHeadModel(
        GPT2Config(vocab_size=65, n_positions=64, n_layer=3, n_head=4, n_embd=48)
    ).train(False)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = GPT(SHAPE).eval()
    copy_weights(theirs, ours)
    return theirs, ours


@pytest.mark.parametrize("length", [1, 2, 17, 64])
def test_logits_and_loss_are_those_of_transformers_gpt2(
    pair: "tuple[GPT2LMHeadModel, GPT]", length: int
) -> None:
    theirs, ours = pair
    idx = torch.randint(65, (3, length + 1))
    with torch.no_grad():
        expected = theirs(idx[:, :-1]).logits
        logits, loss = ours(idx[:, :-1], idx[:, 1:])
    assert (logits - expected).abs().max() < 1e-5
    expected_loss = torch.nn.functional.cross_entropy(
        expected.flatten(0, 1).double(), idx[:, 1:].flatten()
    )
    assert abs(loss.item() - expected_loss.item()) < 1e-5


def test_gradients_are_those_of_transformers_gpt2(pair: "tuple[GPT2LMHeadModel, GPT]") -> None:
    theirs, ours = pair
    idx = torch.randint(65, (2, 33))
    theirs(idx[:, :-1], labels=None).logits.logsumexp(-1).mean().backward()
    ours(idx[:, :-1]).logsumexp(-1).mean().backward()
    assert ours.wte.weight.grad is not None
    torch.testing.assert_close(
        ours.wte.weight.grad, theirs.transformer.wte.weight.grad, atol=1e-6, rtol=1e-4
    )


def test_greedy_text_is_that_of_transformers_gpt2(pair: "tuple[GPT2LMHeadModel, GPT]") -> None:
    theirs, ours = pair
    idx = torch.randint(65, (1, 8))
    expected = theirs.generate(
        idx, attention_mask=torch.ones_like(idx), max_new_tokens=20, do_sample=False, pad_token_id=0
    )
    assert isinstance(expected, Tensor)
    assert torch.equal(ours.generate(idx, 20, temperature=0), expected)


def test_the_parameters_of_base_are_those_of_gpt2_124m() -> None:
    with torch.device("meta"):
        model = GPT(get_config("base", vocab_size=50257))
    assert model.count_parameters() == 124_439_808  # as transformers counts "gpt2"


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_later_tokens_do_not_change_earlier_logits(tiny: Config, dropout: float) -> None:
    model = GPT({**tiny.to_dict(), "dropout": dropout})
    idx = torch.randint(64, (2, 16))
    changed = idx.clone()
    changed[:, 9:] = torch.randint(64, (2, 7))

    def logits(tokens: Tensor) -> Tensor:
        torch.manual_seed(3)  # the same dropout mask
        found: Tensor = model(tokens)
        return found[:, :9].detach()

    assert torch.equal(logits(idx), logits(changed))


def test_the_first_loss_is_about_that_of_a_uniform_guess() -> None:
    model = GPT(get_config("nano", dropout=0.0))
    idx = torch.randint(256, (4, 129))
    _, loss = model(idx[:, :-1], idx[:, 1:])
    assert loss.item() == pytest.approx(math.log(256), abs=0.05)


def test_one_batch_can_be_learnt_by_heart(tiny: Config) -> None:
    model = GPT(tiny)
    idx = torch.randint(64, (2, 17))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        _, loss = model(idx[:, :-1], idx[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_initial_weights_follow_gpt2(tiny: Config) -> None:
    model = GPT({**tiny.to_dict(), "n_embd": 128, "n_layer": 8})
    assert model.get_parameter("h.0.attn.c_attn.weight").std().item() == pytest.approx(
        0.02, rel=0.05
    )
    assert model.get_parameter("h.5.mlp.c_proj.weight").std().item() == pytest.approx(
        0.02 / 4, rel=0.05
    )
    assert not model.get_parameter("h.0.mlp.c_fc.bias").any()


def test_the_seed_alone_decides_the_initial_weights(tiny: Config) -> None:
    first = GPT(tiny)
    torch.randn(7)
    for name, value in GPT(tiny).state_dict().items():
        assert torch.equal(value, first.state_dict()[name])
    other = GPT({**tiny.to_dict(), "seed": 2})
    assert not torch.equal(other.wte.weight, first.wte.weight)


def test_without_bias_there_is_none(tiny: Config) -> None:
    model = GPT({**tiny.to_dict(), "bias": False})
    assert not [name for name, _ in model.named_parameters() if "bias" in name]


def test_a_target_of_minus_one_does_not_count(tiny: Config) -> None:
    model = GPT(tiny)
    idx = torch.randint(64, (1, 9))
    targets = idx[:, 1:].clone()
    targets[:, 4:] = -1
    _, loss = model(idx[:, :-1], targets)
    _, first_four = model(idx[:, :4], idx[:, 1:5])
    torch.testing.assert_close(loss, first_four)


def test_more_tokens_than_block_size_are_refused(tiny: Config) -> None:
    with pytest.raises(DataError, match="17 tokens are more than block_size 16"):
        GPT(tiny)(torch.zeros(1, 17, dtype=torch.long))


def test_a_wrong_plain_dict_is_refused() -> None:
    with pytest.raises(ConfigError, match="n_head: found 5; allowed: a divisor of n_embd 48"):
        GPT({**SHAPE, "n_head": 5})


def test_generate_goes_on_past_block_size_and_keeps_to_known_tokens(tiny: Config) -> None:
    model = GPT(tiny)
    drawn = model.generate(torch.zeros(3, 1, dtype=torch.long), 40, n_tokens=5)
    assert drawn.shape == (3, 41)
    assert drawn.max() < 5


def test_top_k_one_is_greedy_and_a_seed_repeats_a_text(tiny: Config) -> None:
    model = GPT(tiny)
    idx = torch.randint(64, (2, 3))
    greedy = model.generate(idx, 12, temperature=0)
    assert torch.equal(model.generate(idx, 12, top_k=1), greedy)
    texts = [
        model.generate(idx, 12, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    assert torch.equal(texts[0], texts[1])
    assert not torch.equal(texts[0], texts[2])


def test_drawn_tokens_follow_the_softmax(tiny: Config) -> None:
    model = GPT(tiny)
    idx = torch.zeros(1, 4, dtype=torch.long)
    expected = (model.eval()(idx)[0, -1] / 0.7).softmax(-1)
    drawn = model.generate(idx.expand(20_000, -1), 1, temperature=0.7)[:, -1]
    counts = torch.bincount(drawn, minlength=64).float()
    chi_square = ((counts - 20_000 * expected) ** 2 / (20_000 * expected)).sum().item()
    assert chi_square < 63 + 5 * math.sqrt(2 * 63)  # 5 standard deviations above its mean


class Slower(Operators):
    """Operators of some device."""


def test_operators_of_a_device_do_not_follow_the_model_to_another(tiny: Config) -> None:
    model = GPT(tiny)
    model.use(operators := Slower())
    parts = [module for module in model.modules() if isinstance(module, Computes)]
    model.to(torch.float64)
    assert all(part.operators is operators for part in parts)
    torch.nn.Sequential(model).to("meta")
    assert all(part.operators is TORCH for part in parts)
