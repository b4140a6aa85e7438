"""The kernels of a run are compiled together before it launches one, the first time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from every import in_every
from imports import ROOT


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
