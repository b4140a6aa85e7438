"""Starting from trained weights: shape, positions and rows of tokens."""

from typing import Any

import pytest
import torch
from variants import VARIANTS, warmed

from nanogpt2.base.system.errors import ConfigError, DataError
from nanogpt2.config.config import Config, get_config
from nanogpt2.model.checkpoint import Checkpoint
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer
from nanogpt2.train.finetune.start import start_from

KNOWN = CharTokenizer("\nabcdef")


def trained(config: Config, tokenizer: Tokenizer | None = KNOWN, **changes: Any) -> Checkpoint:
    return Checkpoint(warmed(get_config(config, **changes)), tokenizer, {})


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_shape_is_that_of_the_weights(tiny: Config, variant: str) -> None:
    start = trained(get_config(tiny, **VARIANTS[variant]))
    other = get_config("nano", block_size=tiny.block_size, dropout=0.25, init_from="x")
    made = start_from(start, other, KNOWN)
    idx = torch.randint(KNOWN.size, (2, tiny.block_size))
    assert torch.equal(made.model.eval()(idx), start.model.eval()(idx))
    assert made.config.dropout == 0.25
    assert f"n_embd {tiny.n_embd} (not 64)" in made.notes[0]


def test_learned_positions_are_cropped(tiny: Config) -> None:
    start = trained(tiny)
    made = start_from(start, get_config(tiny, block_size=3), KNOWN)
    idx = torch.randint(KNOWN.size, (2, 3))
    assert torch.equal(made.model.eval()(idx), start.model.eval()(idx))
    assert made.model.wpe.weight.shape[0] == 3


def test_more_positions_than_were_learned_are_refused(tiny: Config) -> None:
    asked = get_config(tiny, block_size=tiny.block_size + 1)
    with pytest.raises(
        ConfigError, match=rf"block_size: found .*at most {tiny.block_size}, the pos"
    ):
        start_from(trained(tiny), asked, KNOWN)
    start_from(trained(tiny, positions="rotary"), asked, KNOWN)  # computes angles for any


@pytest.mark.parametrize("tied", [True, False])
def test_rows_of_tokens_that_both_know_are_kept(tiny: Config, tied: bool) -> None:
    start = trained(tiny, tied_head=tied)
    wanted = CharTokenizer("dbz\n")
    made = start_from(start, tiny, wanted)
    before, after = start.model.state_dict(), made.model.state_dict()
    for name in ["wte.weight", *([] if tied else ["lm_head.weight"])]:
        for character in "db\n":
            (old,), (new,) = KNOWN.encode(character), wanted.encode(character)
            assert torch.equal(after[name][new], before[name][old])
        mean = before[name][KNOWN.encode("db\n").tolist()].mean(dim=0)
        anew = after[name][wanted.encode("z")[0]]
        assert (anew - mean).abs().max() < 0.02 * 6  # a draw of N(0, 0.02) from the mean
    assert made.notes[-1] == "3 of 4 tokens keep their rows, 1 start anew"


def test_characters_keep_their_rows_among_bytes(tiny: Config) -> None:
    start = trained(tiny, CharTokenizer("aé"))
    made = start_from(start, get_config(tiny, tokenizer="byte", vocab_size=256), ByteTokenizer())
    assert made.notes[-1] == "1 of 256 tokens keep their rows, 255 start anew"  # é is two bytes
    row = made.model.wte.weight[ord("a")]
    assert torch.equal(row, start.model.wte.weight[0])


def test_without_a_tokenizer_no_row_can_be_matched(tiny: Config) -> None:
    made = start_from(trained(tiny, None), tiny, KNOWN)
    assert made.notes[-1] == "init_from has no tokenizer: all 7 tokens start anew"


def test_lora_refuses_tokens_that_start_anew(tiny: Config) -> None:
    asked = get_config(tiny, lora_rank=2)
    start_from(trained(tiny), asked, KNOWN)
    with pytest.raises(ConfigError, match=r"lora_rank: found 2; allowed: 0, since 1 of 2 tokens"):
        start_from(trained(tiny), asked, CharTokenizer("az"))


def test_more_tokens_than_rows_are_refused(tiny: Config) -> None:
    asked = get_config(tiny, vocab_size=2)
    with pytest.raises(DataError, match=r"vocab_size: found 2; allowed: at least 3, a row"):
        start_from(trained(tiny), asked, CharTokenizer("abz"))


@pytest.mark.parametrize("part", ["wte", "wte.weight", "lm_head"])
def test_rows_that_start_anew_are_not_frozen(tiny: Config, part: str) -> None:
    asked = get_config(tiny, freeze=["h.0", part])
    start = trained(tiny, tied_head=False)
    start_from(start, asked, KNOWN)
    with pytest.raises(ConfigError, match=f"freeze: found {part}; allowed: .* since 1 of 2 tokens"):
        start_from(start, asked, CharTokenizer("az"))
