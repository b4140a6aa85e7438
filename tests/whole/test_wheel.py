"""The library outside its checkout: an sdist, the wheel made of it, and runs in another folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import warm
from imports import ROOT

from nanogpt2.base.system.errors import DeviceError
from nanogpt2.kernels.cpu.operators import compile_operators

SOURCES = ("nanogpt2", "schemas", "setup.py", "pyproject.toml", "README.md", "LICENSE")
TRAINING = """
import os, sys
sys.modules["stages"] = None  # the checkout's: to import it is an error from now on
import nanogpt2
from nanogpt2 import GPT, CharDataset, Trainer, get_config

config = get_config(
    "nano", n_layer=1, n_head=2, n_embd=32, block_size=16, batch_size=4, device="cpu",
    max_iters=2, eval_interval=2, eval_iters=1,
)
dataset = CharDataset("the quick brown fox jumps over the lazy dog. " * 9, block_size=16)
trainer = Trainer(GPT(config), config)
trainer.train(dataset, dataset)
print("trained with", nanogpt2.__file__, flush=True)
os._exit(0)  # Python takes half a second to take torch apart
"""


def run_python(
    *arguments: str, folder: Path, path: Path | str = "", python: str = sys.executable
) -> str:
    """Run Python in `folder`, with `path` before what is installed; return what it prints."""
    done = subprocess.run(
        [python, *arguments], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from an sdist of the project, unpacked as pip would."""
    project = tmp_path_factory.mktemp("project")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, project / name)
    make_sdist = "from setuptools import build_meta; build_meta.build_sdist('.')"
    run_python("-c", make_sdist, folder=project)
    (sdist,) = project.glob("*.tar.gz")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", "."]
    run_python("-m", "pip", "wheel", *options, sdist.name, folder=project)
    (built,) = project.glob("*.whl")
    unpacked = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(unpacked)
    return unpacked


def test_it_holds_the_library_with_all_its_files_and_nothing_else(wheel: Path) -> None:
    library = {path for path in (ROOT / "nanogpt2").rglob("*") if path.is_file()}
    files = {path.relative_to(ROOT) for path in library if path.parent.name != "__pycache__"}
    schemas = {Path("nanogpt2", path.relative_to(ROOT)) for path in ROOT.glob("schemas/*.json")}
    packed = {path.relative_to(wheel) for path in wheel.rglob("*") if path.is_file()}
    assert {path for path in packed if path.parts[0] == "nanogpt2"} == files | schemas
    (other,) = {path.parts[0] for path in packed} - {"nanogpt2"}
    assert other.endswith(".dist-info")


def test_it_trains_with_kernels_in_another_folder(wheel: Path) -> None:
    shown = run_python("-c", TRAINING, folder=Path(), path=wheel, python=warm.executable())
    assert "iter 2: train loss" in shown
    assert f"trained with {wheel / 'nanogpt2'}" in shown
    try:
        compile_operators(16)  # the checkout's
    except DeviceError:
        assert "note: kernels/cpu/cpu.c" in shown
    else:
        assert "note:" not in shown


def test_its_commands_find_the_presets_and_the_schema_inside(wheel: Path) -> None:
    shutil.copy(ROOT / "params.yaml", "my.yaml")
    command = ("-m", "nanogpt2", "preset", "base", "--params", "my.yaml")
    shown = run_python(*command, folder=Path(), path=wheel, python=warm.executable())
    assert " -> 12\n" in shown
    assert "n_layer: 12" in Path("my.yaml").read_text(encoding="utf-8")
