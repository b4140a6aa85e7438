"""Kernels decode on a GPU where they are right; elsewhere torch does, and one line says why."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from every import some
from spoiled import spoil
from variants import VARIANTS, warmed

from nanogpt2.config.config import Config, get_config
from nanogpt2.decode.decoder import ModuleDecoder
from nanogpt2.decode.kernels.choose import (
    choose_decoder,
    decoder_works,
    draw_works,
    kernels_work,
    note_works,
    runs_kernels,
    say,
)
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.generate import generate_tokens
from nanogpt2.sample.request import Request

pytest.importorskip("triton", reason="needs Triton")

import interpreter  # noqa: F401

from nanogpt2.decode.kernels import gpu_kernels as kernels
from nanogpt2.decode.kernels.gpu import FusedDecoder

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OUTPUTS = {"embed": 4, "linear": 6, "attend": 5, "pick": 7, "note": 1}  # the number of the argument
NAMES = {"pick": "draw"}


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    """Let each test compare the kernels anew, and none after it know what it found."""
    known = (decoder_works, draw_works, note_works, kernels_work, say)
    for function in known:
        function.cache_clear()
    yield
    for function in known:
        function.cache_clear()


class Wrong:
    """A kernel, and what is done to its output afterwards."""

    def __init__(self, kernel: Any, change: Callable[[tuple[Any, ...]], None]) -> None:
        self.kernel, self.change = kernel, change

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*args: Any, **options: Any) -> None:
            self.kernel[grid](*args, **options)
            self.change(args)

        return launch


def spoil_kernel(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Make the kernel `name` wrong in one element of its output."""

    def change(args: tuple[Any, ...]) -> None:
        out = args[OUTPUTS[name]]
        if out.is_floating_point():
            out.copy_(spoil(out))
        else:
            out[len(out) // 2] += 1

    monkeypatch.setattr(kernels, name, Wrong(getattr(kernels, name), change))


def make_model(tiny: Config, variant: str = "gpt2") -> GPT:
    sizes = {"n_embd": 20, "vocab_size": 61, "block_size": 8, "n_layer": 1}
    return warmed(get_config({**tiny.to_dict(), **sizes, **VARIANTS[variant]})).to(DEVICE).eval()


@pytest.mark.parametrize(
    ("variant", "rows"),
    some(
        [("gpt2", 1), ("modern", 1), ("modern, conv", 3), ("modern, some", 3)],
        *[("modern", 1), ("modern, some", 3)],
    ),
)
def test_kernels_that_are_right_decode_and_nothing_is_said(
    tiny: Config, variant: str, rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    decoder = choose_decoder(make_model(tiny, variant), rows=rows, n_tokens=None)
    assert type(decoder) is FusedDecoder
    assert capsys.readouterr().err == ""


def test_a_draw_that_is_right_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    assert draw_works(DEVICE, 1100)
    assert note_works(DEVICE)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "rows"),
    some(
        product(["embed", "linear", "attend"], [1, 3]),
        *[("embed", 1), ("linear", 1), ("attend", 3)],
    ),
)
def test_a_kernel_wrong_in_one_element_is_named_and_the_modules_decode(
    tiny: Config, name: str, rows: int,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    model = make_model(tiny)
    spoil_kernel(monkeypatch, name)
    for _ in range(2):
        decoder = choose_decoder(model, rows=rows, n_tokens=None)
        assert type(decoder) is ModuleDecoder
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"note: {name}: computes something else here than torch (largest ")
    assert line.endswith("): decoding goes on with torch's operators, more slowly")
    request = Request([[1, 2]] * rows, list(range(rows)), 4)
    found, right = (
        torch.cat(list(generate_tokens(model, request, partial(make, model, n_tokens=None))), 1)
        for make in (choose_decoder, ModuleDecoder)
    )
    assert torch.equal(found, right)


def test_a_draw_wrong_in_one_token_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil_kernel(monkeypatch, "pick")
    assert not draw_works(DEVICE, 300)
    assert capsys.readouterr().err.startswith("note: draw: computes something else here than torch")
    spoil_kernel(monkeypatch, "note")
    assert not note_works(DEVICE)
    assert capsys.readouterr().err.startswith("note: note: computes something else here than torch")


def test_what_does_not_compile_is_said_once(
    tiny: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: tuple[Any, ...]) -> None:
        raise FileNotFoundError("no C compiler\nand more")

    monkeypatch.setattr(kernels, "embed", Wrong(kernels.embed, fail))
    for rows in (1, 3):
        decoder = choose_decoder(make_model(tiny), rows=rows, n_tokens=None)
        assert type(decoder) is ModuleDecoder
    assert capsys.readouterr().err == (
        "note: embed: does not work here (FileNotFoundError: no C compiler): decoding goes on with"
        " torch's operators, more slowly\n"
    )


@pytest.mark.parametrize(("capability", "works"), [((9, 0), True), ((7, 5), False)])
def test_kernels_are_left_alone_on_old_devices(
    capability: tuple[int, int], works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda _: capability)
    assert kernels_work(DEVICE) is works


@pytest.mark.skipif(DEVICE.type == "cuda", reason="of a CPU")
def test_a_cpu_runs_no_kernels() -> None:
    assert not runs_kernels(torch.zeros(5, 4))
