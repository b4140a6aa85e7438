"""The structure that the design fixes, read from the sources."""

from pathlib import Path

import pytest
import yaml
from imports import ROOT, all_imports, direct_imports

from nanogpt2.config import NOT_TRAINING
from nanogpt2.schema import load_schema
from nanogpt2.trainer import TRAINING_CODE

# Each module imports only from the groups before its own.
LAYERS = [
    {"errors", "interruption"},
    {"files", "capture", "device", "launch", "threads", "operators", "stopwatch", "hardware"}
    | {"decoding_kernels", "fused_kernels", "products"},
    {"yaml12", "shakespeare", "advice", "progress", "overlap", "significance", "record"}
    | {"toolchain"},
    {"schema", "kernels", "fp8"},
    {"config", "fused"},
    {"corpus", "tokenizer", "metrics", "model"},
    {"backends", "dataset", "distributed", "memory", "optimizer", "checkpoint", "preparation"}
    | {"preflight", "report"}
    | {"controls", "decoding", "lean", "text_stream"},
    {"fused_decoding"},
    {"evaluation", "memorisation", "generation", "resume", "step"},
    {"sampling", "scoring", "trainer", "experiments"},
    {"console"},
]
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


def test_modules_import_only_to_the_left() -> None:
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    modules = {path.stem for path in (ROOT / "nanogpt2").glob("*.py")} - {"__init__", "__main__"}
    assert modules == set(rank)
    for module in modules:
        for path in direct_imports(Path("nanogpt2", f"{module}.py")):
            assert path.stem == "__init__" or rank[path.stem] < rank[module], (module, path)


def test_the_library_knows_neither_click_nor_dvc_and_the_tokenizer_no_torch() -> None:
    for path in (ROOT / "nanogpt2").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        if path.stem != "__main__":
            assert "import click" not in source, path
        assert "import dvc" not in source, path
    assert "torch" not in (ROOT / "nanogpt2/tokenizer.py").read_text(encoding="utf-8")


def test_only_experiments_runs_dvc_and_only_the_extra_commands_use_it() -> None:
    experiments = Path("nanogpt2/experiments.py")
    runs_programs = {experiments} | {
        Path(f"nanogpt2/{name}.py") for name in ("launch", "toolchain")
    }
    for path in {found.relative_to(ROOT) for found in (ROOT / "nanogpt2").glob("*.py")}:
        source = (ROOT / path).read_text(encoding="utf-8")
        assert "subprocess" not in source or path in runs_programs, path
        assert path.stem == "__main__" or experiments not in direct_imports(path), path


@pytest.mark.parametrize("stage", list(DVC["stages"]))
def test_a_stage_depends_on_exactly_the_modules_it_imports(stage: str) -> None:
    listed = {dep for dep in DVC["stages"][stage]["deps"] if dep.endswith((".py", ".c"))}
    imported = {path.as_posix() for path in all_imports(Path("stages", f"{stage}.py"))}
    assert listed == imported | (
        {"nanogpt2/kernels.c"} if "nanogpt2/kernels.py" in imported else set()
    )


@pytest.mark.parametrize("stage", [name for name in DVC["stages"] if name != "validate"])
def test_every_stage_waits_for_validate(stage: str) -> None:
    assert "data/validated.json" in DVC["stages"][stage]["deps"]


def test_train_depends_on_each_key_that_changes_weights() -> None:
    keys = set(load_schema()["properties"]) - NOT_TRAINING
    data_keys = set(DVC["stages"]["prepare"]["params"]) - {"vocab_size"}  # seen through its output
    assert set(DVC["stages"]["train"]["params"]) == keys - data_keys


@pytest.mark.parametrize("path", sorted((ROOT / "stages").glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_stages_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 50


def test_an_unfinished_run_is_of_no_use_to_other_versions_of_what_its_weights_depend_on() -> None:
    harmless = {"__init__", "errors", "files", "interruption", "launch", "memory", "schema"}
    harmless |= {"stopwatch", "threads", "tokenizer", "yaml12"}
    of_a_step = {path.stem for path in all_imports(Path("nanogpt2/step.py"))} - harmless
    listed = {Path(name).stem for name in TRAINING_CODE if name.endswith(".py")}
    assert listed == of_a_step | {"step", "trainer"}
