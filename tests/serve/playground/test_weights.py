"""Weights in fewer bits: how near they stay, what that costs, and what is refused."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from variants import warmed

from nanogpt2.base.system.errors import CheckpointError, DataError
from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.model.shapes import make_shapes
from nanogpt2.serve.playground.cost import measure_cost, with_bits
from nanogpt2.serve.playground.page import choose_bits, describe_tokenizer
from nanogpt2.serve.playground.weights import as_packed, pack
from nanogpt2.tokens.tokenizer import ByteTokenizer


def test_eight_bits_are_within_half_a_step_of_each_row_and_sixteen_nearer(tiny: Config) -> None:
    weights = GPT(tiny).state_dict()
    for name, weight in as_packed(weights, bits=8).items():
        whole = weights[name]
        step = whole.abs().amax(dim=-1, keepdim=True) / 127
        assert ((weight - whole).abs() <= 0.5001 * step).all(), name
    for name, weight in as_packed(weights, bits=16).items():
        torch.testing.assert_close(weight, weights[name], rtol=2**-11, atol=2**-24)


def test_rows_that_no_token_uses_are_left_out(tiny: Config) -> None:
    weights = GPT(get_config(tiny, tied_head=False)).state_dict()
    packed = pack(weights, n_tokens=10, bits=8)
    assert packed.tensors["wte.weight"]["rows"] == packed.tensors["lm_head.weight"]["rows"] == 10
    assert packed.tensors["wpe.weight"]["rows"] == tiny.block_size
    assert len(packed.content) < sum(weight.numel() for weight in weights.values()) * 1.5


def test_a_cost_is_none_for_the_same_weights_and_grows_as_they_are_spoilt(tiny: Config) -> None:
    model = warmed(tiny).eval()
    costs = [
        measure_cost(model, other, start=[1], n_tokens=60).nats
        for other in (model, with_bits(model, 16), with_bits(model, 8), GPT(tiny).eval())
    ]
    assert costs[0] == 0
    assert costs == sorted(costs)
    assert costs[1] < 1e-5 < costs[3]
    assert measure_cost(model, model, start=[1], n_tokens=60).greedy_equal == 200


@pytest.mark.parametrize("bits", [8, 16])
def test_weights_that_are_no_numbers_are_refused(tiny: Config, bits: int) -> None:
    weights = GPT(tiny).state_dict()
    weights["h.0.attn.c_attn.weight"][0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="not finite"):
        pack(weights, n_tokens=64, bits=bits)


@pytest.mark.parametrize("pack_in", [as_packed, partial(pack, n_tokens=64)])
def test_bits_that_the_page_lacks_are_refused(tiny: Config, pack_in: Callable[..., object]) -> None:
    with pytest.raises(CheckpointError, match="bits: found 4; allowed in a page: 8, 16"):
        pack_in(GPT(tiny).state_dict(), bits=4)


def test_small_models_have_sixteen_bits_larger_ones_eight_and_no_page_is_endless() -> None:
    found = [
        choose_bits(make_shapes(get_config(name, device="cpu")), n_tokens=69)
        for name in ("nano", "small")
    ]
    assert found == [16, 8]
    endless = make_shapes({"n_layer": 48, "n_head": 25, "n_embd": 1600, "vocab_size": 256})
    with pytest.raises(CheckpointError, match="bytes of weights as text; allowed"):
        choose_bits(endless, n_tokens=256)


def test_a_tokenizer_that_the_page_lacks_is_refused() -> None:
    class Halves(ByteTokenizer):
        name = "halves"

    with pytest.raises(DataError, match="tokenizer: found halves; allowed in a page: bpe, byte"):
        describe_tokenizer(Halves())
