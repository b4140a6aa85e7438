"""cpu.c is given only what it was written for (whole/test_sanitizer.py: it touches no more)."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nanogpt2.base.system.errors import DeviceError
from nanogpt2.kernels.cpu.library import Library
from nanogpt2.kernels.cpu.operators import compile_operators


@pytest.fixture
def library() -> Library:
    try:
        return compile_operators(16).library
    except DeviceError as error:
        pytest.skip(str(error))


def heads(H: int, T: int = 9, D: int = 16, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(2, H, T, D, dtype=dtype)


def attention(library: Library, **changes: Tensor) -> None:
    given = {"q": heads(4), "k": heads(2), "v": heads(2), **changes}
    library.attention(given["q"], given["k"], given["v"], 0.0, 0)


def gradients(library: Library, **changes: Tensor) -> None:
    given = {"q": heads(4), "k": heads(2), "v": heads(2), "dy": heads(4), **changes}
    q, k, v, dy = (given[name] for name in ("q", "k", "v", "dy"))
    saved = q, k, v, given.get("y", heads(4)), given.get("lse", torch.zeros(2, 4, 9))
    library.attention_gradients(saved, dy, 0.0, 0)


def rotate(library: Library, **changes: Tensor) -> None:
    given = {"x": heads(4), "cos": torch.zeros(1, 9, 8), "sin": torch.zeros(1, 9, 8), **changes}
    library.rotate(given["x"], given["cos"], given["sin"], True, given.get("dy"))


def rms_norm(library: Library, **changes: Tensor) -> None:
    given = {"x": torch.zeros(5, 8), "weight": torch.zeros(8), "dy": torch.zeros(5, 8), **changes}
    library.rms_norm(given["x"], given["weight"], 1e-5, torch.float32)
    library.rms_norm_gradients(given["x"], given["weight"], given["dy"], 1e-5)


def mix(library: Library, **changes: Tensor) -> None:
    given = {"x": torch.zeros(2, 5, 8), "weight": torch.zeros(4, 1, 8), **changes}
    library.mix_tokens(given["x"], given["weight"])
    library.mix_tokens(given["x"], given["weight"], given.get("dy", given["x"]))


def gelu(library: Library, **changes: Tensor) -> None:
    library.gelu(*{"x": torch.zeros(9, 4), "dy": torch.zeros(9, 4), **changes}.values())


def add(library: Library, **changes: Tensor) -> None:
    given = {"x": torch.zeros(9), "branch": torch.zeros(9), **changes}
    library.dropout_add(given["x"], given["branch"], 0.1, 1, torch.float32)


half, double = torch.float16, torch.float64
WRONG: list[tuple[Callable[..., None], dict[str, Tensor], str]] = [
    (attention, {"q": heads(4, D=24)}, "for heads of 16 channels"),
    (attention, {"q": heads(4)[0]}, "for heads of 16 channels"),
    (attention, {"q": heads(4, dtype=half)}, "torch.float16 beside torch.float16"),
    (attention, {"k": heads(2, dtype=torch.bfloat16)}, "torch.bfloat16 beside torch.float32"),
    (attention, {"v": heads(2).to("meta")}, "a tensor on meta"),
    (attention, {"q": heads(4, D=32)[..., ::2]}, "for heads of 16 channels"),
    (attention, {"k": heads(3), "v": heads(3)}, "4 heads of queries for 3 of keys"),
    (attention, {"k": heads(8), "v": heads(8)}, "4 heads of queries for 8 of keys"),
    (attention, {"k": heads(0), "v": heads(0)}, "4 heads of queries for 0 of keys"),
    (attention, {"v": heads(1)}, "(2, 1, 9, 16) where (2, 2, 9, 16) is right"),
    (attention, {"k": heads(2, T=8)}, "(2, 2, 8, 16) where (2, 2, 9, 16) is right"),
    (gradients, {"dy": heads(4, T=8)}, "(2, 4, 8, 16) where (2, 4, 9, 16) is right"),
    (gradients, {"y": heads(2)}, "(2, 2, 9, 16) where (2, 4, 9, 16) is right"),
    (gradients, {"dy": heads(4, dtype=double)}, "torch.float64 beside torch.float32"),
    (gradients, {"lse": torch.zeros(2, 4, 8)}, "(2, 4, 8) where (2, 4, 9) is right"),
    (rotate, {"cos": torch.zeros(1, 9, 16)}, "(1, 9, 16) where (1, 9, 8) is right"),
    (rotate, {"sin": torch.zeros(1, 8, 9).mT}, "strides"),
    (rotate, {"sin": torch.zeros(1, 9, 8, dtype=double)}, "torch.float64 beside torch.float32"),
    (rotate, {"dy": heads(3)}, "(2, 3, 9, 16) where (2, 4, 9, 16) is right"),
    (rms_norm, {"x": torch.zeros(5, 7)}, "(5, 7) where (5, 8) is right"),
    (rms_norm, {"x": torch.zeros(8, 5).t()}, "strides"),
    (rms_norm, {"weight": torch.zeros(8, dtype=torch.bfloat16)}, "torch.bfloat16 beside"),
    (rms_norm, {"dy": torch.zeros(4, 8)}, "(4, 8) where (5, 8) is right"),
    (mix, {"x": torch.zeros(2, 8, 5).mT}, "strides"),
    (mix, {"weight": torch.zeros(4, 1, 7)}, "(4, 1, 7) where (4, 1, 8) is right"),
    (mix, {"weight": torch.zeros(4, 1, 8, dtype=torch.bfloat16)}, "torch.bfloat16 beside"),
    (mix, {"dy": torch.zeros(2, 4, 8)}, "(2, 4, 8) where (2, 5, 8) is right"),
    (gelu, {"x": torch.zeros(4, 9).t()}, "strides"),
    (gelu, {"dy": torch.zeros(9, 4, dtype=torch.bfloat16)}, "torch.bfloat16 beside torch.float32"),
    (gelu, {"dy": torch.zeros(9, 5)}, "(9, 5) where (9, 4) is right"),
    (add, {"x": torch.zeros(8)}, "(8,) where (9,) is right"),
    (add, {"branch": torch.zeros(9, dtype=half)}, "torch.float16 beside torch.float16"),
]


@pytest.mark.parametrize("call", [attention, gradients, rotate, rms_norm, mix, gelu, add])
def test_what_fits_is_taken(library: Library, call: Callable[..., None]) -> None:
    call(library)


@pytest.mark.parametrize(("call", "changes", "found"), WRONG)
def test_what_does_not_fit_is_refused_before_c_is_called(
    library: Library, call: Callable[..., None], changes: dict[str, Tensor], found: str
) -> None:
    with pytest.raises(ValueError, match=r"^cpu\.c: found ") as error:
        call(library, **changes)
    assert found in str(error.value)


def test_channels_that_are_no_pairs_cannot_be_turned() -> None:
    try:
        odd = compile_operators(5).library
    except DeviceError as error:
        pytest.skip(str(error))
    with pytest.raises(ValueError, match="pairs of 5 channels"):
        odd.rotate(heads(2, D=5), torch.zeros(1, 9, 2), torch.zeros(1, 9, 2), False)
