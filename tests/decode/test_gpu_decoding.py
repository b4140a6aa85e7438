"""Decoding with Triton kernels is decoding; without a GPU, in Triton's interpreter."""

from functools import partial

import pytest
import torch
from every import some
from torch import Tensor
from variants import VARIANTS, warmed

from nanogpt2.config.config import Config, get_config
from nanogpt2.decode.decoder import Decoder, ModuleDecoder
from nanogpt2.decode.draw import Controls, draw_tokens, draw_uniforms
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.generate import generate_tokens
from nanogpt2.sample.request import Request

pytest.importorskip("triton", reason="needs Triton")

import interpreter  # noqa: F401

from nanogpt2.decode.kernels import gpu as decode_gpu
from nanogpt2.decode.kernels.gpu import FusedDecoder, draw_fused

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ODD = {"n_embd": 20, "n_head": 2, "vocab_size": 61, "block_size": 8, "n_layer": 1}
SOME = ["modern, conv", "modern, some"]  # which have all that there is between them


def make_model(tiny: Config, name: str, **changes: object) -> GPT:
    """Return a variant of a model whose sizes are no powers of two."""
    config = get_config({**tiny.to_dict(), **ODD, **VARIANTS[name], **changes})
    return warmed(config).to(DEVICE).eval()


def run_steps(decoder: Decoder, idx: Tensor, lengths: list[int], steps: int) -> Tensor:
    """Return the logits (steps, B, V) of `steps` steps after each row's prompt in `idx`."""
    decoder.reach(8)
    for row, length in enumerate(lengths):
        decoder.encode(idx[row, :length], row)
    at, rows = torch.tensor(lengths, device=DEVICE), torch.arange(len(idx), device=DEVICE)
    return torch.stack([decoder.step(idx[rows, at + step], at + step) for step in range(steps)])


def assert_alike(model: GPT, lengths: list[int], steps: int, *, tolerance: float = 1e-5) -> None:
    """Compare with the modules' logits, in units of the largest."""
    idx = torch.randint(61, (len(lengths), 16), device=DEVICE)
    with torch.inference_mode():
        found, expected = (
            run_steps(make(model, rows=len(idx), n_tokens=50), idx, lengths, steps)
            for make in (FusedDecoder, ModuleDecoder)
        )
    assert found.shape == (steps, len(idx), 50)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name", some(VARIANTS, "softcap", "modern, some"))
def test_rows_at_different_positions_get_the_modules_logits(tiny: Config, name: str) -> None:
    assert_alike(make_model(tiny, name), [1, 4, 2], 2)


@pytest.mark.parametrize("name", some(SOME, "modern, some"))
def test_one_row_gets_the_modules_logits(tiny: Config, name: str) -> None:
    assert_alike(make_model(tiny, name), [4], 2)


@pytest.mark.parametrize("rows", some([17, 33, 66], 33, 66))
def test_many_rows_get_the_modules_logits(tiny: Config, rows: int) -> None:
    assert_alike(make_model(tiny, "gpt2"), [1 + row % 7 for row in range(rows)], 1)


def test_channels_in_more_than_one_tile_get_the_modules_logits(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_gpu, "DEEPEST", 16)
    monkeypatch.setattr(decode_gpu, "MANY_ROWS_DEPTH", 16)
    for lengths in ([2], [2, 6]):
        assert_alike(make_model(tiny, "gpt2"), lengths, 1)


@pytest.mark.parametrize("name", some(SOME, "modern, conv"))
def test_the_window_slides_past_the_block(tiny: Config, name: str) -> None:
    assert_alike(make_model(tiny, name), [8, 7], 2)


@pytest.mark.parametrize("name", some(SOME, "modern, some"))
@pytest.mark.parametrize(
    ("dtype", "lengths"),
    [(torch.bfloat16, [5]), (torch.float16, [2, 7])],  # the interpreter's dot has no bfloat16
)
def test_low_precision_is_as_close_as_its_digits(
    tiny: Config, name: str, dtype: torch.dtype, lengths: list[int]
) -> None:
    model = make_model(tiny, name).to(dtype)
    assert_alike(model, lengths, 1, tolerance=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("name", some(SOME, "modern, conv"))
def test_greedy_tokens_are_those_without_a_cache(tiny: Config, name: str) -> None:
    model = make_model(tiny, name)
    texts = []
    for use_cache in (True, False):
        request = Request([[1, 2, 3], [4]], [0, 1], 3, Controls(temperature=0), use_cache=use_cache)
        texts.append(
            torch.cat(
                list(generate_tokens(model, request, partial(FusedDecoder, model, n_tokens=None))),
                1,
            )
        )
    assert torch.equal(*texts)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 1e-3])
@pytest.mark.parametrize("penalty", [1.0, 1.5])
def test_the_draw_is_the_controls_draw(temperature: float, penalty: float) -> None:
    logits = 3 * torch.randn(8, 2500, device=DEVICE)
    logits[5, 1024:] = -1e9  # no chance at all in the last parts
    logits[4, -1] = logits[5, 1023] = 9.0  # the last ones drawn have a chance beyond rounding
    uniforms = draw_uniforms(range(8), 1).to(DEVICE)
    uniforms[4:6], uniforms[6] = 1 - 2**-53, 0
    seen = None if penalty == 1 else torch.rand(8, 2500, device=DEVICE) < 0.2
    controls = Controls(temperature=temperature, repetition_penalty=penalty)
    drawn = draw_fused(logits, uniforms, controls, seen=seen)
    assert torch.equal(drawn, draw_tokens(logits, uniforms, controls, seen=seen))
