"""Decoding with cpu.c is decoding, and its bits depend on nothing but a row's own tokens."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from decoding import ODD, WIDE, make_model, run
from spoiled import spoil
from torch import Tensor
from variants import VARIANTS

from nanogpt2.config.config import Config
from nanogpt2.decode.decoder import ModuleDecoder
from nanogpt2.decode.draw import Controls, draw_tokens, draw_uniforms
from nanogpt2.decode.kernels import choose, cpu, cpu_library
from nanogpt2.decode.kernels.choose import choose_draw, prepare
from nanogpt2.decode.kernels.cpu import CompiledDecoder, CompiledWeights, draw_compiled
from nanogpt2.device import compiler
from nanogpt2.device.threads import Sleepers, _loaded_libraries
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.generate import generate_tokens
from nanogpt2.sample.request import Request

pytestmark = pytest.mark.usefixtures("compiler")
UNEVEN = {"n_embd": 15, "n_head": 3}  # heads of 5 channels, which rotary positions do not take


@pytest.fixture
def _nothing_known() -> Iterator[None]:
    """Let a test compare what is compiled anew, and none after it know what it found."""
    known = (choose.compiles, choose.compiled_works, choose.compiled_draw_works, choose.say)
    for function in known:
        function.cache_clear()
    yield
    for function in known:
        function.cache_clear()


def make_decoder(model: GPT, *, rows: int) -> CompiledDecoder:
    return CompiledDecoder(CompiledWeights(model, n_tokens=50), rows=rows)


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Compare in units of the largest."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, shape) for name in VARIANTS for shape in ({}, ODD, WIDE)]
    + [(name, UNEVEN) for name in ("gpt2", "qk_norm", "swiglu", "n_kv_head")],
    ids=str,
)
def test_prompts_steps_and_windows_get_the_modules_logits(
    tiny: Config, name: str, shape: dict[str, object]
) -> None:
    model = make_model(tiny, name, **shape)
    T = model.config.block_size
    idx = torch.randint(61, (4, T))
    with torch.inference_mode():
        ours, theirs = make_decoder(model, rows=4), ModuleDecoder(model, rows=4, n_tokens=50)
        lengths = [1, T - 3, 7, T // 2]
        assert_close(*(run(decoder, idx, lengths, 3) for decoder in (ours, theirs)))
        assert_close(*(decoder.last_logits(idx) for decoder in (ours, theirs)))
        assert_close(*(decoder.last_logits(idx[:, :5]) for decoder in (ours, theirs)))


@pytest.mark.parametrize("name", ["rotary", "modern", "modern, conv", "modern, some"])
def test_the_window_slides_past_the_block(tiny: Config, name: str) -> None:
    model = make_model(tiny, name, **ODD)
    idx = torch.randint(65, (2, 60))
    with torch.inference_mode():
        decoders = make_decoder(model, rows=2), ModuleDecoder(model, rows=2, n_tokens=50)
        assert_close(*(run(decoder, idx, [18, 3], 40) for decoder in decoders))


def test_a_block_shorter_than_the_convolution_slides_too(tiny: Config) -> None:
    model = make_model(tiny, "modern, conv", block_size=3, mlp_conv=8)
    idx = torch.randint(64, (2, 20))
    with torch.inference_mode():
        decoders = make_decoder(model, rows=2), ModuleDecoder(model, rows=2, n_tokens=50)
        ours, theirs = (run(decoder, idx, [1, 2], 12) for decoder in decoders)
        assert_close(ours, theirs)
        assert_close(ours[2, 0], model(idx[:1, :3])[0, -1, :50])


@pytest.mark.parametrize(
    ("name", "shape"),
    [("modern, some", ODD), ("modern, some", WIDE), ("modern, conv", ODD)],
    ids=["odd", "wide", "conv"],
)
def test_a_rows_bits_are_the_same_in_any_batch(
    tiny: Config, name: str, shape: dict[str, object]
) -> None:
    model = make_model(tiny, name, **shape)
    lengths = [1 + 5 * row % 14 for row in range(33)]
    idx = torch.randint(61, (33, 19))
    alone = [run(make_decoder(model, rows=1), idx[[r]], [n], 3) for r, n in enumerate(lengths)]
    for rows in range(2, 34):
        together = run(make_decoder(model, rows=rows), idx[:rows], lengths[:rows], 3)
        assert torch.equal(together, torch.cat(alone[:rows], dim=1))


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let two threads share any work, however small, and sleep where they have none."""
    monkeypatch.setattr(cpu, "SHARED_WORK", 0)
    torch.set_num_threads(2)
    sleepers = Sleepers(_loaded_libraries())  # other tests want the cores
    sleepers.set(True)
    yield
    sleepers.set(False)
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["gpt2", "modern, conv", "modern, some"])
def test_two_threads_compute_the_same_bits(
    tiny: Config, name: str, request: pytest.FixtureRequest
) -> None:
    model = make_model(tiny, name, **WIDE)
    idx = torch.randint(61, (5, 40))

    def compute() -> list[Tensor]:
        decoder = make_decoder(model, rows=5)
        logits = [run(decoder, idx, [1, 30, 7, 20, 2], 3), decoder.last_logits(idx)]
        return [*logits, text(model, Controls(top_k=9))]

    alone = compute()
    request.getfixturevalue("two_threads")
    assert all(map(torch.equal, alone, compute()))


def text(model: GPT, controls: Controls, *, chunk: int = 16) -> Tensor:
    request = Request([[1, 2, 3], [4]], [5, 6], 30, controls, n_tokens=50, chunk=chunk)
    return torch.cat(list(generate_tokens(model, request)), dim=1)


@pytest.mark.parametrize("name", ["modern, conv", "modern, some"])
@pytest.mark.parametrize(
    "controls", [Controls(), Controls(0.8, 20, 0.9, 0.01, 1.3), Controls(temperature=0)], ids=str
)
def test_a_text_is_that_of_the_modules(tiny: Config, name: str, controls: Controls) -> None:
    model = make_model(tiny, name)
    request = Request([[1, 2, 3], [4]], [5, 6], 30, controls, n_tokens=50)
    modules = ModuleDecoder(model, rows=2, n_tokens=50)
    expected = torch.cat(list(generate_tokens(model, request, lambda *, rows: modules)), dim=1)
    assert torch.equal(text(model, controls), expected)
    assert torch.equal(text(model, controls, chunk=3), expected)


# --- The draw ---


@pytest.mark.parametrize("size", [1, 5, 65])
@pytest.mark.parametrize("spread", [0.1, 3.0, 40.0])
@pytest.mark.parametrize(
    "controls",
    [
        Controls(),
        Controls(temperature=0),
        Controls(temperature=0.3),
        Controls(temperature=1e-300),
        Controls(temperature=50),
        Controls(top_k=1),
        Controls(top_k=7),
        Controls(top_k=10**9),
        Controls(top_p=0.9),
        Controls(top_p=5e-324),
        Controls(min_p=0.05),
        Controls(min_p=1.0),
        Controls(repetition_penalty=1.5),
        Controls(0.7, 40, 0.8, 0.02, 1.2),
        Controls(2, 600, 0.99, 0.001, 0.8),
    ],
    ids=str,
)
def test_the_draw_is_draw_tokens(size: int, spread: float, controls: Controls) -> None:
    rows, generator = 300, torch.Generator().manual_seed(size)
    logits = spread * torch.randn(rows, size, generator=generator)
    seen = torch.rand(rows, size, generator=generator) < 0.2
    uniforms = draw_uniforms(range(rows), 1)
    uniforms[0], uniforms[1] = 0, 1 - 1e-6
    drawn = draw_compiled(logits, uniforms, controls, seen=seen)
    assert torch.equal(drawn, draw_tokens(logits, uniforms, controls, seen=seen))


def test_the_draw_among_gpt2s_tokens_is_draw_tokens() -> None:
    logits = 2 * torch.randn(50, 50257, generator=torch.Generator().manual_seed(0))
    uniforms = draw_uniforms(range(50), 1)
    for controls in (Controls(), Controls(0.7), Controls(top_k=40, top_p=0.9)):
        drawn = draw_compiled(logits, uniforms, controls)
        assert torch.equal(drawn, draw_tokens(logits, uniforms, controls))


def test_equal_logits_share_a_rank_in_top_k_and_are_ranked_by_number_in_top_p() -> None:
    logits = torch.tensor([[1.0, 2.0, 1.0, 2.0, 1.0, 0.0]]).expand(400, -1)
    uniforms = draw_uniforms(range(400), 1)
    for controls in (Controls(top_k=3), Controls(top_k=1), Controls(top_p=0.6)):
        drawn = draw_compiled(logits, uniforms, controls)
        assert torch.equal(drawn, draw_tokens(logits, uniforms, controls))


def test_logits_that_are_no_numbers_draw_some_token() -> None:
    logits = torch.full((3, 65), torch.nan)
    for controls in (Controls(), Controls(temperature=0), Controls(top_k=3, top_p=0.5)):
        drawn = draw_compiled(logits, draw_uniforms(range(3), 1), controls)
        assert ((drawn >= 0) & (drawn < 65)).all()


# --- What is refused ---


def test_what_lies_outside_is_refused_before_anything_is_read(tiny: Config) -> None:
    decoder = make_decoder(make_model(tiny, "gpt2"), rows=1)
    for token in (-1, 64):
        with pytest.raises(IndexError, match="a token is not in the vocabulary"):
            decoder.step(torch.tensor([token]), torch.tensor([0]))
    for position in (-1, 16):
        with pytest.raises(IndexError, match="a position is past the block"):
            decoder.step(torch.tensor([0]), torch.tensor([position]))


def test_other_weights_and_modules_are_left_to_the_modules(
    tiny: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(tiny, "gpt2")
    assert isinstance(prepare(model)(rows=1), CompiledDecoder)
    assert isinstance(prepare(make_model(tiny, "gpt2").double())(rows=1), ModuleDecoder)
    assert capsys.readouterr().err == ""
    model.h[0].add_module("extra", torch.nn.Bilinear(2, 2, 2))
    assert isinstance(prepare(model)(rows=1), ModuleDecoder)
    assert capsys.readouterr().err == (
        "note: Bilinear: known to no compiled code: decoding goes on with torch's operators, more"
        " slowly\n"
    )


WRONG = "computes something else here than torch (largest difference "


@pytest.mark.usefixtures("_nothing_known")
@pytest.mark.parametrize("name", ["gpt2", "modern"])
def test_logits_wrong_in_one_element_are_named_and_the_modules_decode(
    tiny: Config, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = CompiledDecoder.step
    monkeypatch.setattr(CompiledDecoder, "step", lambda *given: spoil(step(*given)))
    model = make_model(tiny, name)
    for _ in range(2):
        assert isinstance(prepare(model)(rows=1), ModuleDecoder)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: decode/kernels/cpu.c: {WRONG}")


@pytest.mark.usefixtures("_nothing_known")
def test_a_part_that_only_some_variants_have_is_refused_for_them_alone(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "QK_EPS", 0.1)
    assert isinstance(prepare(make_model(tiny, "gpt2"))(rows=1), CompiledDecoder)
    assert isinstance(prepare(make_model(tiny, "modern"))(rows=1), ModuleDecoder)


@pytest.mark.usefixtures("_nothing_known")
def test_a_draw_wrong_in_one_token_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(*given: Any, **options: Any) -> Tensor:
        tokens = draw_compiled(*given, **options)
        tokens[len(tokens) // 2] ^= 1
        return tokens

    weight = torch.zeros(300, 4)
    assert choose_draw(weight) is draw_compiled
    choose.compiled_draw_works.cache_clear()
    monkeypatch.setattr(choose, "draw_compiled", draw)
    assert choose_draw(weight) is draw_tokens
    assert capsys.readouterr().err.startswith(f"note: draw: {WRONG}")


@pytest.mark.usefixtures("_nothing_known")
def test_without_a_compiler_the_modules_decode(
    tiny: Config, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("CC", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for module, name in (
        (compiler, "_cache_folder"),
        (cpu_library, "load_library"),
        (choose, "load"),
    ):
        monkeypatch.setattr(module, name, getattr(module, name).__wrapped__)
    for _ in range(2):
        assert isinstance(prepare(make_model(tiny, "gpt2"))(rows=1), ModuleDecoder)
    assert choose_draw(torch.zeros(5, 4)) is draw_tokens
    assert capsys.readouterr().err == (
        "note: decode/kernels/cpu.c: `false` does not compile it here: decoding goes on with"
        " torch's operators, more slowly\n"
    )
