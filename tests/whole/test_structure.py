"""The structure that the design fixes, read from the sources."""

import ast
from functools import cache
from pathlib import Path

import pytest
import yaml
from imports import ROOT, all_imports, direct_imports, nodes

from nanogpt2.config.config import NOT_TRAINING
from nanogpt2.config.schema import load_schema
from nanogpt2.train.states import TRAINING_ROOMS

# Each room imports only from those before it. A room lies in a wing, a folder of the library, which
# may be a room itself: then the wing's name alone stands for its own modules.
ROOMS = (
    *("base/system", "base/screen", "config", "device", "tokens/bpe", "tokens", "text/reading"),
    *("text/cleaning", "text/copies", "text/scan", "text/prepare", "text/shards", "text/survey"),
    *("text/doctor", "model", "kernels/checks", "kernels/cpu", "kernels", "report"),
    *("train/finetune", "train/distil", "train/optimizers", "train/unfinished", "train"),
    *("decode", "decode/kernels", "decode/ensemble", "sample", "evaluate", "exchange/incoming"),
    *("exchange/export", "experiments/trials", "experiments", "experiments/plan"),
    *("experiments/proof", "experiments/compare", "experiments/pages", "experiments/gate"),
    *("serve/playground", "serve/batching", "serve/completions", "serve"),
    *("commands/shared", "commands"),
)
WINGS = tuple(dict.fromkeys(room.partition("/")[0] for room in ROOMS))
PACKAGE = ROOT / "nanogpt2"
MODULES = [path.relative_to(ROOT) for path in sorted(PACKAGE.rglob("*.py"))]
GUIDE_PATHS = {Path("nanogpt2/dataset.py"), Path("nanogpt2/trainer.py")}
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


def room_of(path: Path) -> str | None:
    """Return the room that a module lies in, or None for one at the top or in stages."""
    inside = path.parts[0] == "nanogpt2" and len(path.parts) > 2
    return path.relative_to("nanogpt2").parent.as_posix() if inside else None


def wing_of(path: Path) -> str | None:
    """Return the wing that a module lies in, or None as `room_of` does."""
    room = room_of(path)
    return room.partition("/")[0] if room else None


def source(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def imported_libraries(path: Path) -> frozenset[str]:
    """Return the first part of the name of all that a module imports."""
    names = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return frozenset(names)


def test_the_rooms_are_those_of_the_list() -> None:
    folders = {path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")}
    assert folders == {*ROOMS, *WINGS, "."}
    assert {room_of(path) for path in MODULES if path.name != "__init__.py"} == {*ROOMS, None}
    assert 12 <= len(WINGS) <= 16


def test_the_rooms_of_a_wing_stand_together() -> None:
    wings = [room.partition("/")[0] for room in ROOMS]
    assert wings == sorted(wings, key=WINGS.index)


def test_the_tree_in_the_documents_has_every_file_in_the_order_of_the_rooms() -> None:
    document = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    tree = document.partition("```\nnanogpt2/\n")[2].partition("```")[0]
    shown, folders = [], [""]
    for line in tree.splitlines():
        depth, name = (len(line) - len(line.lstrip())) // 2, line.split()[0]
        assert line.count("(") == line.count(")"), line  # a sentence is whole, not cut to the line
        assert not line.endswith(("…", ",", "et al")), line
        shown.append(folders[depth - 1] + name)
        folders[depth:] = [shown[-1]]
    files = sorted(path for path in PACKAGE.rglob("*") if path.is_file())
    names = {
        path.relative_to(PACKAGE).as_posix() for path in files if "__pycache__" not in path.parts
    }
    folders_there = {f"{name}/" for name in (*ROOMS, *WINGS, "presets")}
    there = {name for name in names if not name.endswith("/__init__.py")} | folders_there
    assert sorted(shown) == sorted(there)
    wings = [name for name in shown if name.count("/") == 1 and name.endswith("/")]
    assert wings == [f"{wing}/" for wing in (*WINGS, "presets")]
    # a room stands where its first file does: a wing's own modules before or after its rooms
    rooms = dict.fromkeys(name.rpartition("/")[0] for name in shown if not name.endswith("/"))
    assert [room for room in rooms if room not in ("", "presets")] == [*ROOMS]


def test_a_room_imports_only_from_those_before_it() -> None:
    for path in MODULES:
        room = room_of(path)
        for other in map(room_of, direct_imports(path) if room else ()):
            before = (*ROOMS[: ROOMS.index(room)], room) if room in ROOMS else ROOMS
            assert other is None or other in before, (path, other)


def test_a_wing_imports_only_from_those_before_it() -> None:
    for path in MODULES:
        wing = wing_of(path)
        for other in map(wing_of, direct_imports(path) if wing else ()):
            before = WINGS[: WINGS.index(wing) + 1] if wing else WINGS
            assert other is None or other in before, (path, other)


def test_the_modules_of_a_room_import_one_another_in_no_circle() -> None:
    waiting = {path: set(direct_imports(path)) & set(MODULES) - {path} for path in MODULES}
    waiting = {
        path: {found for found in imports if found.name != "__init__.py"}
        for path, imports in waiting.items()
        if path.name != "__init__.py"
    }
    while waiting:
        free = [path for path, imports in waiting.items() if not imports & waiting.keys()]
        assert free, waiting
        waiting = {path: imports for path, imports in waiting.items() if path not in free}


def test_training_reads_no_text_and_alone_shows_its_progress() -> None:
    for path in MODULES:
        wings = set(map(wing_of, direct_imports(path)))
        if wing_of(path) == "train":
            assert "text" not in wings, path
        else:
            assert "report" not in wings or wing_of(path) == "report", path


def test_an_init_says_what_enters_and_leaves_and_imports_nothing() -> None:
    for path in PACKAGE.glob("*/**/__init__.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        lines = (ast.get_docstring(tree) or "").splitlines()
        assert 1 <= len(lines) <= 3, path
        plain = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert all(isinstance(n, ast.ImportFrom) and n.module == "typing" for n in plain), path


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("click", {"stages", "commands", "commands/shared", "__main__"}),
        ("yaml", {"config"}),
        ("subprocess", {"experiments/trials", "launch", "compiler", "replay", "repository"}),
        ("triton", {"gpu", "gpu_kernels", "gpu_ahead", "fp8"}),
        ("dvc", set()),
    ],
)
def test_a_library_is_imported_only_where_it_belongs(library: str, homes: set[str]) -> None:
    for path in MODULES:
        home = {room_of(path), path.stem} & homes
        assert home or library not in imported_libraries(path), path


def test_the_tokenizer_does_without_torch() -> None:
    assert "torch" not in source(Path("nanogpt2/tokens/tokenizer.py"))


def test_rooms_and_modules_stay_small() -> None:
    lines = {path: len(source(path).splitlines()) for path in MODULES}
    assert max(lines.values()) <= 350, max(lines, key=lambda path: lines[path])
    for room in ROOMS:
        assert sum(n for path, n in lines.items() if room_of(path) == room) <= 1500, room


def test_no_two_files_of_tests_have_one_name() -> None:
    """Pytest imports them by it."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "__init__.py"]
    assert sorted(names) == sorted(set(names))


def test_classes_stay_small() -> None:
    for path in MODULES:
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                assert (node.end_lineno or 0) - node.lineno < 200, (path, node.name)


def folders_read_by(path: Path) -> set[str]:
    """Return the folders that hold the rooms from which running `path` imports, and no other room.

    What is only shown does not count. Whoever reads a folder reads all below it, so a wing stands
    for its rooms where all are imported, and must not have modules of its own where some are not.
    """
    shown = {found for found in MODULES if room_of(found) in ("report", "base/screen")}
    rooms = {room for found in all_imports(path, without=shown) if (room := room_of(found))}
    folders = set()
    for wing in WINGS:
        of_wing = {room for room in ROOMS if room.partition("/")[0] == wing}
        found = {wing} if of_wing <= rooms else of_wing & rooms
        assert wing not in found or of_wing <= rooms, (path, of_wing - rooms)
        folders |= found
    return folders


@pytest.mark.parametrize("stage", list(DVC["stages"]))
def test_a_stage_depends_on_exactly_the_rooms_it_imports(stage: str) -> None:
    listed = {dep for dep in DVC["stages"][stage]["deps"] if dep.startswith(("nanogpt2", "stages"))}
    folders = {f"nanogpt2/{folder}" for folder in folders_read_by(Path("stages", f"{stage}.py"))}
    assert listed == folders | {"stages/shared", f"stages/{stage}.py"}


@pytest.mark.parametrize("stage", [name for name in DVC["stages"] if name != "validate"])
def test_every_stage_waits_for_validate(stage: str) -> None:
    assert "data/validated.json" in DVC["stages"][stage]["deps"]


def test_train_depends_on_each_key_that_changes_weights() -> None:
    keys = set(load_schema()["properties"]) - NOT_TRAINING
    # those of prepare are seen through its output, but for what it only checks
    data_keys = set(DVC["stages"]["prepare"]["params"]) - {"vocab_size", "block_size"}
    assert set(DVC["stages"]["train"]["params"]) == keys - data_keys


@pytest.mark.parametrize("path", sorted((ROOT / "stages").glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_stages_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 50


def test_an_unfinished_run_is_of_no_use_to_other_versions_of_the_rooms_that_train() -> None:
    assert sorted(TRAINING_ROOMS) == sorted(folders_read_by(Path("stages/train.py")))
