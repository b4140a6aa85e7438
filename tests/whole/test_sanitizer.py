"""What is compiled from C touches no memory but what it is given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from every import some
from imports import ROOT

from nanogpt2.kernels.cpu.operators import SOURCE
from nanogpt2.train.distil.cpu import SOURCE as ROWS_SOURCE

SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
LIBRARIES = [(SOURCE, 5), (SOURCE, 24), (ROWS_SOURCE, 0)]  # with the size of a head; rows have none
FLAGS = ["-O0", "-std=gnu11", "-march=native", "-fopenmp", "-shared", "-fPIC", *SANITIZERS]


def find_sanitizer() -> str:
    """Return the paths of gcc's address sanitizer, and of what throws, which it looks for."""
    if torch.version.cuda:
        pytest.skip("a torch for CUDA does not start under the address sanitizer")
    paths = []
    for name in ("libasan.so", "libstdc++.so.6"):
        command = ["gcc", f"-print-file-name={name}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs gcc")
        paths.append(done.stdout.strip())
        if not Path(paths[-1]).is_absolute():
            pytest.skip("needs gcc's address sanitizer")
    return " ".join(paths)


def test_no_memory_is_misused_in_training_or_decoding(tmp_path: Path) -> None:
    """Of what torch allocates too: its tensors lie between guards.

    To optimise what is checked takes longer than to run it as it is. One process runs it all:
    torch takes seconds to start under the sanitizer.
    """
    surroundings = {"LD_PRELOAD": find_sanitizer()}
    built: list[str] = []
    for source, head_size in some(LIBRARIES, *LIBRARIES[1:]):
        built.append(str(tmp_path / f"{len(built)}.so"))
        command = ["gcc", *FLAGS, f"-DHEAD_SIZE={head_size}", str(source), "-o", built[-1], "-lm"]
        subprocess.run(command, check=True)
    compiler = tmp_path / "gcc"
    options = f'{" ".join(SANITIZERS)} $(echo "$@" | sed s/-O3/-O0/)'
    compiler.write_text(f"#!/bin/sh\nexec gcc {options}\n", encoding="utf-8")
    compiler.chmod(0o755)
    surroundings |= {
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter has some
        "CC": str(compiler),
        "XDG_CACHE_HOME": str(tmp_path),
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests", *sys.path])),
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("sanitized.py")), *built],
        env={**os.environ, **surroundings}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "computed\ndecoded\n"), done.stderr[-3000:]
