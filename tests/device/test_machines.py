"""Machines that are not at hand: what each would be given is chosen here, and C is compiled for it.

Which are tested, and where, is in docs/machines.md.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from imports import ROOT

from nanogpt2.base.system.errors import DataError, DeviceError
from nanogpt2.base.system.files import write_text
from nanogpt2.base.system.signals import caught_signals
from nanogpt2.base.system.workers import Workers
from nanogpt2.config.config import Config, get_config
from nanogpt2.decode.draw import Controls, draw_tokens, narrowed
from nanogpt2.decode.kernels import choose as decoding
from nanogpt2.device.compiler import load_library
from nanogpt2.device.device import precision_dtype
from nanogpt2.device.launch import LAUNCHER, end_with_launcher
from nanogpt2.kernels.choose import find_operators
from nanogpt2.model.operators import TORCH
from nanogpt2.serve.run import open_socket
from nanogpt2.text.copies.library import DEFINES

CUDA = torch.device("cuda")
SOURCES = sorted((ROOT / "nanogpt2").rglob("*.c"))
ARM_GCC, ARM = "aarch64-linux-gnu-gcc", "qemu-aarch64"
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


def numbers(compiler: str, folder: Path, *emulator: str) -> dict[str, np.ndarray[Any, Any]]:
    """Return what the kernels of training compute, compiled by `compiler`."""
    program, source = folder / compiler.split()[0], Path(__file__).with_name("numbers.c")
    flags = "-std=gnu11 -ffp-contract=fast -fno-math-errno -fopenmp -static -DHEAD_SIZE=24"
    given = f"-I{ROOT}", f'-DKERNELS="{ROOT}/nanogpt2/kernels/cpu/cpu.c"', str(source)
    command = [*compiler.split(), *flags.split(), *given, "-o", str(program), "-lm"]
    subprocess.run(command, check=True, capture_output=True)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = subprocess.run([*emulator, str(program)], check=True, stdout=subprocess.PIPE, env=env)
    lines = [line.split() for line in said.stdout.decode("ascii").splitlines()]
    return {f"{at} {name}": np.array(each, np.float64) for at, (name, *each) in enumerate(lines)}


def test_an_arm_processor_computes_what_this_one_does(tmp_path: Path) -> None:
    """Emulated; ci/arm.sh has the library's own tests run so."""
    if lacking := [name for name in ("gcc", ARM_GCC, ARM) if shutil.which(name) is None]:
        pytest.skip(f"no {' and no '.join(lacking)} here")
    here, there = numbers("gcc -O1", tmp_path), numbers(f"{ARM_GCC} -O3", tmp_path, ARM)
    assert here.keys() == there.keys()
    for name, expected in here.items():
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(there[name], expected, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the ways that are for Windows, as far as they can be gone here."""
    monkeypatch.setattr(sys, "platform", "win32")


@pytest.mark.usefixtures("windows")
def test_windows_compiles_nothing_and_says_so() -> None:
    with pytest.raises(DeviceError, match="not compiled on Windows"):
        load_library(SOURCES[0], NUMBER=1)


@pytest.mark.usefixtures("windows")
@pytest.mark.parametrize("refusals", [3, 1000])
def test_a_file_that_is_read_is_replaced_once_its_reader_is_through(
    refusals: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses to replace a file that is open elsewhere."""
    path, left, replace = tmp_path / "read.json", [refusals], Path.replace
    path.write_text("old", encoding="utf-8")

    def refuse(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] >= 0:
            raise PermissionError(13, "The process cannot access the file")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr("nanogpt2.base.system.files.WAIT_SECONDS", 0.001)
    if refusals < 1000:
        write_text(path, "new")
    else:
        with pytest.raises(DataError, match="cannot be written: The process cannot access"):
            write_text(path, "new")
    assert path.read_text(encoding="utf-8") == ("new" if refusals < 1000 else "old")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("windows")
def test_a_process_on_windows_ends_with_its_launcher_though_that_is_no_parent_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The python.exe of a virtual environment stands between them."""
    launcher = psutil.Popen(["sleep", "60"])  # imported before this is Windows
    monkeypatch.setenv(LAUNCHER, str(launcher.pid))
    assert launcher.pid != os.getppid()
    with caught_signals() as interruption:
        watching = threading.Thread(target=end_with_launcher)
        watching.start()
        watching.join(0.6)
        assert interruption.name is None
        launcher.kill()
        launcher.wait()
        watching.join()
        assert interruption.name == signal.SIGTERM.name


@pytest.mark.usefixtures("windows")
def test_a_server_on_windows_shares_its_port_with_no_other() -> None:
    with open_socket("127.0.0.1", 0) as first:
        assert first.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 0
        first.listen()
        with pytest.raises(DataError, match="choose another"):
            open_socket("127.0.0.1", first.getsockname()[1])


@pytest.mark.usefixtures("windows")
def test_no_more_workers_than_windows_lets_a_process_wait_for() -> None:
    assert Workers(128).count < 63
    assert Workers(8).count == 8
