"""Machines that are not at hand: what each would be given is chosen here, and C is compiled for it.

Which are tested, and where, is in docs/machines.md.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from imports import ROOT

from nanogpt2.base.errors import DeviceError
from nanogpt2.config.config import Config, get_config
from nanogpt2.copies.library import DEFINES
from nanogpt2.decode.draw import Controls, draw_tokens, narrowed
from nanogpt2.decode_kernels import choose as decoding
from nanogpt2.device.device import precision_dtype
from nanogpt2.kernels.choose import find_operators
from nanogpt2.model.operators import TORCH

CUDA = torch.device("cuda")
SOURCES = sorted((ROOT / "nanogpt2").glob("*/*.c"))
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-std=gnu11", "-DHEAD_SIZE=24")
COMPILERS = (
    *("gcc -fopenmp -march=x86-64-v3", "gcc -fopenmp -march=x86-64"),
    *("clang -Xpreprocessor -fopenmp", "aarch64-linux-gnu-gcc -fopenmp -march=armv8.2-a+dotprod"),
)


@pytest.fixture
def rocm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a torch that was built for AMD's GPUs."""
    monkeypatch.setattr(torch.version, "hip", "6.4.43484")
    decoding.kernels_work.cache_clear()


@pytest.mark.usefixtures("rocm")
def test_an_amd_gpu_has_torchs_operators_which_is_said_in_a_line(tiny: Config) -> None:
    said: list[str] = []
    config = get_config({**tiny.to_dict(), "device": "cuda", "precision": "fp32"})
    assert find_operators(config, CUDA, say=said.append) is TORCH
    (line,) = said
    assert "AMD's GPUs" in line
    assert "torch's operators, more slowly" in line


@pytest.mark.usefixtures("rocm")
def test_an_amd_gpu_decodes_with_torchs_operators(capsys: pytest.CaptureFixture[str]) -> None:
    decoding.say.cache_clear()
    assert not decoding.kernels_work(CUDA)
    assert "AMD's GPUs: decoding goes on with torch's operators" in capsys.readouterr().err


@pytest.mark.usefixtures("rocm")
def test_an_amd_gpu_refuses_fp8() -> None:
    with pytest.raises(DeviceError, match="NVIDIA"):
        precision_dtype("fp8", CUDA)


def test_no_number_in_float32_draws_a_token_that_controls_leave_out() -> None:
    """MPS has no float64, in which no uniform number is rounded to 1."""
    logits = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    uniforms = narrowed(torch.tensor([[1 - 2.0**-53]], dtype=torch.float64))
    assert uniforms.dtype == torch.float32
    assert uniforms.item() < 1
    assert draw_tokens(logits, uniforms, Controls(top_k=2)).item() == 1


@pytest.mark.parametrize("compiler", COMPILERS)
def test_c_compiles_without_a_warning(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler.split()[0]) is None:
        pytest.skip(f"no {compiler.split()[0]} here")
    defines = [f"-D{name}={value}" for name, value in DEFINES.items()]
    command = [*compiler.split(), *WARNINGS, *defines, *map(str, SOURCES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "-march" in done.stderr:
        pytest.skip("gcc here is another processor's")
    assert done.returncode == 0, done.stderr
