"""Stages by hand: another model than params.yaml's is told, and logs have a place of their own."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from imports import ROOT

from nanogpt2.config import yaml12
from stages import prepare, train, validate

SMALL = {
    "block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16, "batch_size": 4, "max_iters": 4,
    "eval_interval": 2, "eval_iters": 1, "warmup_iters": 1, "device": "cpu", "dropout": 0.0,
    "learning_rate": 0.008, "min_learning_rate_fraction": 0.1, "mixed_precision": True,
}  # fmt: skip
MODERN = SMALL | {"architecture": "modern", "optimizer": "muon"}
LEFT_OUT = (
    "my.yaml leaves out keys that params.yaml has; defaults of the schema serve:"
    ' architecture: "gpt2", not "modern"; optimizer: "adamw", not "muon"\n'
)


@pytest.fixture(autouse=True)
def _project() -> None:
    """A project of the small run, with a modern model in params.yaml."""
    text = yaml12.replace_values((ROOT / "params.yaml").read_text(encoding="utf-8"), MODERN)
    Path("params.yaml").write_text(text.replace("data/shakespeare", "text.txt"), encoding="utf-8")
    Path("text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 40)
    assert CliRunner().invoke(prepare.main, []).output.startswith("read 1 file")


def write(values: dict[str, object]) -> str:
    lines = [f"{key}: {yaml12.show(value)}" for key, value in values.items()]
    Path("my.yaml").write_text("\n".join(lines), encoding="utf-8")
    return "my.yaml"


def test_keys_left_out_are_named_in_the_first_line() -> None:
    options = ["--config", write(SMALL | {"corpus": "text.txt"}), "--metrics", "mine/train.json"]
    shown = CliRunner().invoke(train.main, [*options, "--curve", "mine/loss.csv"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith(LEFT_OUT)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sample": {"seed": 1337}, "evaluate": {}}, ""),
        ({"corpus": None}, 'corpus: "data/shakespeare", not "text.txt"'),
        ({"dropout": None}, "dropout: 0.1, not 0.0"),
        ({"n_embd": None, "n_layer": None}, "n_layer: 4, not 1; n_embd: 64, not 16"),
        ({"n_head": 5}, ""),
    ],
    ids=str,
)
def test_only_what_differs_is_named(change: dict[str, object], named: str) -> None:
    given = MODERN | {"corpus": "text.txt"} | change
    config = write({key: value for key, value in given.items() if value is not None})
    shown = CliRunner().invoke(validate.main, ["--config", config, "--out", "out.json"]).output
    assert (named in shown) if named else ("leaves out" not in shown)


@pytest.mark.parametrize("preset", ["nano", "small", "base", "params.yaml"])
def test_presets_and_whole_files_leave_nothing_out(preset: str) -> None:
    shown = CliRunner().invoke(validate.main, ["--config", preset, "--out", "out.json"]).output
    assert "architecture" not in shown


def test_without_params_beside_it_nothing_is_compared() -> None:
    Path("params.yaml").unlink()
    config = write(SMALL | {"corpus": "text.txt"})
    shown = CliRunner().invoke(validate.main, ["--config", config, "--out", "out.json"]).output
    assert "leaves out" not in shown


@pytest.mark.parametrize(
    ("metrics", "log"),
    [
        ("metrics/train.json", "logs/train"),
        ("mine/train.json", "mine/train-logs/train"),
        ("train.json", "train-logs/train"),
        ("mine/metrics/a.json", "mine/metrics/a-logs/train"),
    ],
)
def test_the_log_and_the_report_go_beside_the_metrics(metrics: str, log: str) -> None:
    shown = CliRunner().invoke(train.main, ["--metrics", metrics, "--curve", "c.csv"])
    assert shown.exit_code == 0, shown.output
    found = {path.as_posix() for path in Path().rglob("*-logs/*")}
    found |= {path.as_posix() for path in Path().rglob("logs/*")}
    live = Path(log).with_name("live.json").as_posix()
    assert found == {f"{log}.log", f"{log}.json", live}
