"""Weights of 8 bits: what cpu.c makes of them is what torch makes of the rounded numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from decoding import ODD, WIDE, make_model, run
from spoiled import spoil
from variants import VARIANTS

from nanogpt2.__main__ import main
from nanogpt2.base.system.errors import CheckpointError, DeviceError
from nanogpt2.config.config import Config
from nanogpt2.decode.kernels import choose, cpu
from nanogpt2.decode.kernels.choose import prepare
from nanogpt2.decode.kernels.cpu import CompiledDecoder, CompiledWeights
from nanogpt2.decode.kernels.int8 import round_inputs, round_rows, rounded_logits
from nanogpt2.model.checkpoint import save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.tokenizer import ByteTokenizer

pytestmark = pytest.mark.usefixtures("compiler")
FLIPPED = 0.05  # of the largest logit: an input that sums in another order round elsewhere


def make_decoder(model: GPT, *, rows: int) -> CompiledDecoder:
    return CompiledDecoder(CompiledWeights(model, n_tokens=50, int8=True), rows=rows)


@pytest.mark.parametrize("shape", [{}, ODD, WIDE], ids=["tiny", "odd", "wide"])
@pytest.mark.parametrize("name", VARIANTS)
def test_logits_are_those_of_the_rounded_numbers(
    tiny: Config, name: str, shape: dict[str, Any]
) -> None:
    model = make_model(tiny, name, **shape)
    T = model.config.block_size
    idx = torch.randint(61, (4, T), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = rounded_logits(model, idx)[..., :50]
        found = run(make_decoder(model, rows=4), idx, [1, T - 3, 7, T // 2], 2)
    lengths = torch.tensor([1, T - 3, 7, T // 2])
    for step, logits in enumerate(found):
        right = expected[torch.arange(4), lengths - 1 + step]
        difference = (logits - right).abs() / right.abs().max()
        assert difference.max() < FLIPPED
        assert difference.median() < 1e-5


def test_rounding_moves_no_number_by_more_than_half_a_step() -> None:
    x = torch.randn(5, 70, generator=torch.Generator().manual_seed(0))
    scales, numbers = round_rows(x)
    assert ((scales * numbers - x).abs() <= scales * 0.5001).all()
    groups, rounded = torch.split(x, 32, dim=1), torch.split(round_inputs(x), 32, dim=1)
    for group, found in zip(groups, rounded, strict=True):
        steps = group.abs().amax(dim=1, keepdim=True) / 127
        assert ((found - group).abs() <= steps * 0.5001).all()
    assert torch.equal(round_inputs(torch.zeros(2, 40)), torch.zeros(2, 40))


@pytest.mark.parametrize("name", ["gpt2", "modern, some"])
def test_a_rows_bits_are_the_same_in_any_batch_and_with_two_threads(
    tiny: Config, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tiny, name, **ODD)
    lengths = [1 + 5 * row % 14 for row in range(14)]
    idx = torch.randint(61, (14, 19))
    alone = [run(make_decoder(model, rows=1), idx[[r]], [n], 3) for r, n in enumerate(lengths)]
    for rows in (2, 3, 4, 5, 6, 7, 14):
        together = run(make_decoder(model, rows=rows), idx[:rows], lengths[:rows], 3)
        assert torch.equal(together, torch.cat(alone[:rows], dim=1))
    monkeypatch.setattr(cpu, "SHARED_WORK", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(run(make_decoder(model, rows=14), idx, lengths, 3), together)
    finally:
        torch.set_num_threads(threads)


def test_a_copy_takes_a_quarter_of_the_memory(tiny: Config) -> None:
    model = make_model(tiny, "gpt2", n_embd=256, n_head=4)
    sizes = [CompiledWeights(model, n_tokens=None, int8=int8).room.taken for int8 in (False, True)]
    assert sizes[1] < 0.27 * sizes[0]


def test_where_it_cannot_be_it_says_so(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(tiny, "gpt2")
    assert isinstance(prepare(model, int8=True)(rows=1), CompiledDecoder)
    with pytest.raises(DeviceError, match=r"int8: found torch\.bfloat16 weights on cpu; allowed:"):
        prepare(make_model(tiny, "gpt2").bfloat16(), int8=True)
    step = CompiledDecoder.step
    monkeypatch.setattr(CompiledDecoder, "step", lambda *given: spoil(step(*given)))
    choose.compiled_works.cache_clear()
    with pytest.raises(DeviceError, match="int8: found"):
        prepare(model, int8=True)
    choose.compiled_works.cache_clear()
    choose.say.cache_clear()
    assert (
        "decode/kernels/cpu.c: computes something else here than torch" in capsys.readouterr().err
    )


def test_weights_that_are_not_finite_are_refused(tiny: Config) -> None:
    model = make_model(tiny, "gpt2")
    with torch.no_grad():
        model.get_parameter("h.0.attn.c_attn.weight")[3, 2] = torch.nan
    with pytest.raises(CheckpointError, match="a weight is not finite"):
        CompiledWeights(model, n_tokens=None, int8=True)


def test_generate_writes_with_8_bits(tiny: Config, tmp_path: Path) -> None:
    model = make_model(tiny, "modern", vocab_size=256)
    path = tmp_path / "model.pt"
    save_checkpoint(path, model.state_dict(), model.config, tokenizer=ByteTokenizer(), origin={})
    given = ["generate", f"--checkpoint={path}", "--prompt=ab", "--max-new-tokens=20", "--seed=3"]
    result = CliRunner().invoke(main, [*given, "--int8"])
    assert result.exit_code == 0, result.stderr
    assert "20 tokens" in result.stderr
    result = CliRunner().invoke(main, [*given, "--int8", "--half-precision"])
    assert result.exit_code == 1
    assert result.stderr.startswith("int8: found torch.bfloat16 weights on cpu; allowed: float32")
