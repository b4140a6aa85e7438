"""The configuration: what validate refuses, and how files, presets and defaults are read.

Each file in params/ is a case. Its first lines, comments, say what is expected; what follows is
laid over the committed params.yaml, or stands alone after `# whole file`. In params/invalid a line
`# expect: start | part` stands for one line on stderr that begins and goes on so; in params/valid
`# expect: key | value` gives the value read, as JSON.
"""

import ctypes
import dataclasses
import difflib
import functools
import io
import json
import os
import re
import subprocess
import sys
import types
import typing
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from dvc.utils.hydra import apply_overrides
from hypothesis import example, given, settings
from hypothesis import strategies as st
from imports import ROOT

from nanogpt2.__main__ import main as extra_commands
from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config import yaml12
from nanogpt2.config.config import (
    Config,
    get_config,
    preset_names,
    read_values,
    use_preset,
)
from nanogpt2.config.schema import load_schema, with_defaults
from stages.validate import main as validate

PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")
CASES = Path(__file__).parent / "params"
INVALID = sorted((CASES / "invalid").iterdir())
VALID = sorted((CASES / "valid").iterdir())
SENTENCE = "The quick brown fox jumps over the lazy dog.\n"


@dataclasses.dataclass
class Case:
    """A configuration file, and the parts of each line or value that it stands for."""

    content: bytes
    expected: list[list[str]]


def read_case(path: Path) -> Case:
    lines = path.read_bytes().splitlines(keepends=True)
    heading = [line for line in lines if line.startswith((b"# expect: ", b"# whole file"))]
    content = b"".join(lines[len(heading) :])
    expected = [line.decode().removeprefix("# expect: ").rstrip().split(" | ") for line in heading]
    if expected[0] == ["# whole file"]:
        return Case(content, expected[1:])
    return Case(lay_over_params(content.decode()).encode(), expected)


def lay_over_params(edit: str) -> str:
    """Return the committed params.yaml without the top-level keys of `edit`, and then `edit`."""
    params = PARAMS
    for key in re.findall(r"^(\w+):", edit, re.MULTILINE):
        params = re.sub(rf"^{key}:.*\n(?: .*\n)*", "", params, flags=re.MULTILINE)
    return params + edit


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with texts, and with the outputs of an earlier run."""
    contents = {
        "corpus/a.txt": SENTENCE.encode() * 100,
        "no_text/notes.md": SENTENCE.encode(),
        "latin1.txt": b"plain\ncaf\xe9\n",
        "empty.txt": b"",
        "byte.json": b'{"name": "byte"}',
        "words.json": b'{"model": {"type": "WordPiece"}}',
        "data/prompt.txt": b"",
        "data/validated.json": b"of an earlier run",
        "data/prepared/train.bin": bytes(100),
        "checkpoints/best_model.pt": bytes(100),
        "metrics/train.json": b"{}",
        "samples/sample_1.txt": SENTENCE.encode(),
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_validate(content: bytes | str) -> Result:
    Path("my.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    return CliRunner().invoke(validate, ["--config", "my.yaml"])


def files_in(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "my.yaml"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_refused(result: Result, expected: list[list[str]]) -> None:
    """Assert exit code 1, no traceback, and one line for each of `expected`, in any order.

    A line begins with the first part and holds the others.
    """
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    for start, *parts in expected:
        found = [
            line for line in lines if line.startswith(start) and all(part in line for part in parts)
        ]
        assert len(found) == 1, (start, parts, result.stderr)
        lines.remove(found[0])
    assert not lines, "lines that no mistake stands for"


def stem(path: Path) -> str:
    return path.stem


# --- validate ---


@pytest.mark.parametrize("path", INVALID, ids=stem)
def test_an_invalid_file_is_refused_and_nothing_is_touched(path: Path, surroundings: Path) -> None:
    case, before = read_case(path), files_in(surroundings)
    assert case.expected
    result = run_validate(case.content)
    assert_refused(result, [[f"my.yaml: {start}", *parts] for start, *parts in case.expected])
    assert files_in(surroundings) == before


@pytest.mark.parametrize("path", VALID, ids=stem)
def test_a_valid_file_is_read_right(path: Path, surroundings: Path) -> None:
    case = read_case(path)
    assert case.expected
    result = run_validate(case.content)
    assert result.exit_code == 0, result.output
    assert json.loads(Path("data/validated.json").read_text(encoding="utf-8"))
    config = get_config("my.yaml")
    for name, text in case.expected:
        value = functools.reduce(getattr, name.split("."), config)
        expected = json.loads(text)
        assert (value, type(value)) == (expected, type(expected)), name


def test_the_real_command_prints_all_mistakes_without_a_traceback(surroundings: Path) -> None:
    case = read_case(CASES / "invalid" / "several_mistakes.yaml")
    before = files_in(surroundings)
    Path("my.yaml").write_bytes(case.content)
    done = run_python("-m", "stages.validate", "--config", "my.yaml")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == len(case.expected)
    for parts in case.expected:
        assert any(all(part in line for part in parts) for line in done.stderr.splitlines())
    assert files_in(surroundings) == before


@pytest.mark.parametrize(
    ("name", "problem"),
    [("nowhere.yaml", "cannot be read: No such file"), ("data", "cannot be read: Is a directory")],
)
def test_a_file_that_cannot_be_read_is_refused(name: str, problem: str, surroundings: Path) -> None:
    assert_refused(CliRunner().invoke(validate, ["--config", name]), [[name, problem]])


def test_a_file_in_utf16_is_refused(surroundings: Path) -> None:
    assert_refused(run_validate(PARAMS.encode("utf-16")), [["my.yaml", "not UTF-8 text"]])


def test_windows_newlines_are_read(surroundings: Path) -> None:
    assert run_validate(PARAMS.replace("\n", "\r\n").encode()).exit_code == 0
    assert get_config("my.yaml") == get_config(ROOT / "params.yaml")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_without_a_driver_is_refused(device: str, surroundings: Path) -> None:
    if device == "cuda" and has_gpu_driver():
        pytest.skip("this machine has a GPU driver")
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    result = run_validate(f"device: {device}\n")
    assert_refused(result, [["my.yaml: device: ", f"found {device}", "auto or cpu"]])


def has_gpu_driver() -> bool:
    """Return whether one of the libraries of NVIDIA's and AMD's drivers loads."""
    for name in ("libcuda.so.1", "libamdhip64.so", "nvcuda.dll"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


# --- What the commands load ---


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def modules_loaded_by(module: str, *options: str) -> set[str]:
    """Return the modules that `python -m module options` imports; assert that it ends well."""
    done = run_python("-X", "importtime", "-m", module, *options)
    assert done.returncode == 0, done.stderr
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize("stage", sorted(yaml12.read(ROOT / "dvc.yaml")["stages"]))
def test_help_of_a_stage_loads_nothing_heavy(stage: str) -> None:
    loaded = modules_loaded_by(f"stages.{stage}", "--help")
    assert "click" in loaded
    assert not loaded & {"torch", "numpy", "yaml", "jsonschema"}


def test_validate_does_not_load_torch(surroundings: Path) -> None:
    loaded = modules_loaded_by("stages.validate", "--config", str(ROOT / "params.yaml"))
    assert {"yaml", "jsonschema"} <= loaded
    assert not loaded & {"torch", "numpy"}


# --- Schema, dataclasses, presets and params.yaml agree ---


def test_the_dataclass_has_the_keys_of_the_schema_in_order_and_type() -> None:
    assert_same_fields(Config, load_schema()["properties"])


def assert_same_fields(group: type, properties: dict[str, Any]) -> None:
    hints = typing.get_type_hints(group)
    assert [field.name for field in dataclasses.fields(group)] == list(properties)
    for key, rule in properties.items():
        if rule.get("type") == "object":
            assert_same_fields(hints[key], rule["properties"])
        else:
            assert types_of(hints[key]) == schema_types(rule), key


def types_of(hint: Any) -> set[type]:
    return set(typing.get_args(hint)) if isinstance(hint, types.UnionType) else {hint}


def schema_types(rule: dict[str, Any]) -> set[type]:
    if "enum" in rule:
        return {type(value) for value in rule["enum"]}
    names = rule["type"]
    python = {"string": str, "integer": int, "number": float, "boolean": bool}
    python |= {"null": type(None), "array": list[str]}
    return {python[name] for name in ([names] if isinstance(names, str) else names)}


def test_each_default_is_valid_and_each_key_is_explained() -> None:
    assert get_config({}).to_dict() == with_defaults({})
    for rule in load_schema()["properties"].values():
        assert rule["description"]


def test_the_defaults_are_the_nano_preset_as_plain_gpt2() -> None:
    defaults = with_defaults({})
    nano = read_values("nano")[1]
    plain = {"architecture": "gpt2", "optimizer": "adamw", "learning_rate": 1e-3}
    assert nano | plain | {"mixed_precision": False} == {key: defaults[key] for key in nano}


@pytest.mark.parametrize("name", preset_names())
def test_each_preset_is_valid_and_gives_the_same_keys(name: str, surroundings: Path) -> None:
    assert CliRunner().invoke(validate, ["--config", name]).exit_code == 0
    assert read_values(name)[1].keys() == read_values("nano")[1].keys()


def test_the_presets_grow() -> None:
    assert preset_names() == ["base", "finetune", "nano", "small"]
    nano, small, base = (get_config(name) for name in ("nano", "small", "base"))
    assert nano.n_embd < small.n_embd < base.n_embd
    assert nano.n_layer < small.n_layer < base.n_layer


def test_params_yaml_is_valid_and_lists_every_key() -> None:
    get_config(ROOT / "params.yaml")
    values = yaml12.parse(PARAMS, name="params.yaml")
    properties = load_schema()["properties"]
    assert values.keys() == properties.keys()
    for group in ("evaluate", "sample"):
        assert values[group].keys() == properties[group]["properties"].keys()


# --- The configuration in code ---


def test_get_config_takes_overrides() -> None:
    config = get_config("nano", max_iters=100, learning_rate=1)
    assert (config.max_iters, config.learning_rate) == (100, 1.0)
    assert config == get_config(get_config("nano").to_dict(), max_iters=100, learning_rate=1)


def test_get_config_refuses_wrong_overrides_in_one_line_each() -> None:
    with pytest.raises(ConfigError) as error:
        get_config("nano", n_head=5, max_iter=100)
    assert str(error.value).splitlines() == [
        "nano.yaml: max_iter: unknown key; did you mean max_iters?",
        "nano.yaml: n_head: found 5; allowed: a divisor of half of n_embd 64: 1, 2, 4, 8, 16, 32",
    ]


def test_a_configuration_answers_by_key_and_never_changes() -> None:
    config = get_config("nano")
    assert config["learning_rate"] == config.learning_rate == 8e-3
    with pytest.raises(KeyError):
        config["to_dict"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 1  # type: ignore[misc]  # refused by types too


def test_a_saved_configuration_is_plain_data() -> None:
    file = io.BytesIO()
    torch.save({"config": get_config("small")}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)["config"]
    assert type(saved) is OrderedDict
    assert saved == get_config("small").to_dict()
    assert get_config(saved) == get_config("small")


# --- Edits of params.yaml ---


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_preset_changes_its_own_values_and_no_other_character(
    newline: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    params = lay_over_params("n_layer: 4\nlearning_rate: 1e-3 # fast\nmixed_precision: false\n")
    before = "\ufeff" + params.replace("\n", newline)
    path.write_bytes(before.encode())
    changes = use_preset("base", path)
    after = path.read_bytes().decode()

    def without_values(text: str) -> list[str]:
        return [re.sub(r"^(\w+): *[^\s#]+", r"\1:", line) for line in text.splitlines(True)]

    assert without_values(after) == without_values(before)
    changed = difflib.ndiff(before.splitlines(), after.splitlines())
    assert sum(line.startswith("+ ") for line in changed) == len(changes)
    preset = read_values("base")[1]
    assert yaml12.read(path) == yaml12.parse(params, name="before") | preset
    assert "n_layer: 4 -> 12" in changes
    assert "learning_rate: 0.001 -> 0.0006" in changes
    assert "mixed_precision: false -> true" in changes
    assert use_preset("base", path) == []


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("seed=1337", []),
        ("learning_rate=5e-4", ["learning_rate: 0.0005"]),
        ("bias=true", ["bias: true"]),
        ("sample.top_k=20", ["  top_k: 20"]),
        ("evaluate.stride=null", []),
        ("sample.stop=[end]", ["  - end"]),
    ],
)
def test_dvc_changes_the_line_of_its_key_and_no_other(override: str, changed: list[str]) -> None:
    path = Path("params.yaml")
    path.write_text(PARAMS, encoding="utf-8")
    apply_overrides(path, [override])
    after = path.read_text(encoding="utf-8")
    added = [
        line[2:] for line in difflib.ndiff(PARAMS.split("\n"), after.split("\n")) if line[0] == "+"
    ]
    assert [line.split("  #")[0].rstrip() for line in added if "stop:" not in line] == changed
    assert get_config("params.yaml").corpus == get_config(ROOT / "params.yaml").corpus


def test_what_a_preset_and_a_null_leave_dvc_leaves_alone() -> None:
    path = Path("params.yaml")
    nulls = dict.fromkeys(("seed", "mlp", "dropout", "checkpoint_interval", "max_iters"))
    path.write_text(yaml12.replace_values(PARAMS, nulls), encoding="utf-8")
    assert yaml12.read(path) == yaml12.parse(PARAMS, name="before") | nulls
    before = path.read_text(encoding="utf-8")
    apply_overrides(path, ["n_layer=3"])
    assert path.read_text(encoding="utf-8") == before
    path.write_text(PARAMS, encoding="utf-8")
    for name in preset_names():
        use_preset(name, path)
        after = path.read_text(encoding="utf-8")
        apply_overrides(path, ["val_fraction=0.1"])
        assert path.read_text(encoding="utf-8") == after


def test_the_preset_command_prints_what_changed(surroundings: Path) -> None:
    Path("params.yaml").write_text(PARAMS, encoding="utf-8")
    result = CliRunner().invoke(extra_commands, ["preset", "small"])
    assert result.exit_code == 0
    assert "n_layer: 3 -> 8" in result.stdout.splitlines()
    assert_refused(
        CliRunner().invoke(extra_commands, ["preset", "smal"]),
        [["unknown preset smal", "base, finetune, nano, small"]],
    )


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        ("n_layer:\n  deep: 4\n", "no line `n_layer: value`"),
        ("n_layer: &n 4\nn_head: *n\n", "line "),
        ("learning_rate: fast\nbeta1: 2\n", "beta1: found 2"),
        ("seed: [1\n", "line "),
    ],
)
def test_a_preset_that_would_leave_an_invalid_file_leaves_it_alone(
    edit: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(lay_over_params(edit), encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=re.escape(problem)) as error:
        use_preset("small", path)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == before


KEYS = ["seed", "n_layer", "dropout", "corpus", "x y", "größe", "sample"]
OLD_VALUES = ["", " 1", " 1e-3", "  yes", " 'a # b'", ' "a\\"b: "', " |\n  a\n  b", " [1, {a: b}]"]
REMARKS = ["\n", "  # n_layer: 1\n", "\n\n# seed: 3\n", "\nnested:\n  n_layer: 2\n  dropout: 3\n"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**90), 10**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)


@settings(deadline=None)
@given(
    lines=st.lists(
        st.tuples(st.sampled_from(KEYS), st.sampled_from(OLD_VALUES), st.sampled_from(REMARKS[:3])),
        unique_by=lambda line: line[0],
        min_size=1,
    ),
    nested=st.booleans(),
    data=st.data(),
)
def test_replaced_values_are_read_back_and_the_rest_of_the_text_stays(
    lines: list[tuple[str, str, str]], nested: bool, data: st.DataObject
) -> None:
    pieces = [(f"{key}:", old, "\n" if "|" in old else end) for key, old, end in lines]
    tail = REMARKS[3] if nested else ""
    text = "".join(map("".join, pieces)) + tail
    scalar_keys = [key for key, old, _ in lines if "[" not in old]
    values = (
        data.draw(st.dictionaries(st.sampled_from(scalar_keys), SCALARS)) if scalar_keys else {}
    )
    replaced = yaml12.replace_values(text, values)
    old_values = yaml12.parse(text, name="old")
    assert yaml12.parse(replaced, name="new") == old_values | values
    at = 0
    for (start, old, end), (key, _, _) in zip(pieces, lines, strict=True):
        for kept in (start, end) if key in values else (start, old, end):
            at = replaced.index(kept, at) + len(kept)
    assert replaced.endswith(tail)


PIECES = [
    *("a: ", "\n", "  ", "b:", "- ", "# c", "'", '"', "|", ">", "2", "-", "1e-3", "~", "%"),
    *("\\x41", "...", "[", "]", "{", "}", ", "),
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@example("a: |#\n  b\n")
@example("a: >2-# b\n")
@example((ROOT / "dvc.yaml").read_text("utf-8"))
@example((ROOT / "dvc.lock").read_text("utf-8"))
@example(PARAMS)
def test_a_file_is_read_quickly_only_where_the_strict_loader_reads_the_same(text: str) -> None:
    try:
        found = yaml12.parse(text, name="params.yaml")
    except ConfigError:
        return
    assert repr(found) == repr(yaml.load(text, yaml12.Yaml12Loader))


def test_a_value_without_a_line_of_its_own_cannot_be_replaced() -> None:
    with pytest.raises(ConfigError, match="no line `n_head: value`"):
        yaml12.replace_values("n_layer: 4\nn_head: {a: 1}\n", {"n_layer": 1, "n_head": 2})


def test_a_key_left_out_of_the_pipelines_file_is_a_mistake(surroundings: Path) -> None:
    text = re.sub("(?m)^dropout:.*\n|^  temperature:.*\n", "", PARAMS)
    Path("my.yaml").write_text(text, encoding="utf-8")
    result = CliRunner().invoke(validate, ["--config", "my.yaml", "--all-keys"])
    assert result.exit_code == 1
    assert sorted(result.stderr.splitlines()) == [
        "my.yaml: dropout: missing; add its line, such as dropout: 0.1",
        "my.yaml: sample.temperature: missing; add its line, such as temperature: 0.8",
    ]
