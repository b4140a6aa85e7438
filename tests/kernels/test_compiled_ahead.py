"""The kernels of a run are compiled together before it launches one, the first time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
from every import in_every
from imports import ROOT

from nanogpt2.kernels.checks.gpu_ahead import Pool


@pytest.mark.parametrize("preset", ["small", "base"])
@in_every("kernels are compiled for a GPU, in seconds")
def test_all_kernels_of_a_run_are_compiled_before_it_launches_one(
    preset: str, tmp_path: Path
) -> None:
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_INTERPRET": "0"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *sys.path])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    command = [sys.executable, str(ROOT / "tests/compiled.py"), device, preset]

    def compiled() -> tuple[int, bool]:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        ahead = next(line for line in done.stdout.splitlines() if line.startswith("ahead"))
        return int(ahead.split()[1]), "later []" in done.stdout

    ahead, complete = compiled()
    assert ahead > 5
    assert complete
    assert compiled() == (0, False)  # Triton has them on disk, and a run that looks for all is slow


def test_kernels_are_loaded_for_the_gpu_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread begins on the first GPU; what it loads there runs on no other."""
    taken: list[int] = []

    class Driver:
        get_current_device = staticmethod(lambda: 1)
        set_current_device = taken.append

    monkeypatch.setattr(triton.runtime.driver, "_active", Driver)
    with Pool() as pool:
        pool.submit(list).result()
    assert taken == [1]
