"""The stages validate and prepare, run on a corpus in the current folder."""

import json
from pathlib import Path

from click import Command
from click.testing import CliRunner, Result

from stages.prepare import main as prepare_stage

PREPARED, VALIDATED = Path("out/prepared"), Path("out/validated.json")


def run(stage: Command, *, corpus: str = "raw", **params: object) -> Result:
    """Run a stage on `corpus` with a small block_size and halves as splits."""
    out = PREPARED if stage is prepare_stage else VALIDATED
    params = {
        "corpus": corpus,
        "block_size": 1,
        "val_fraction": 0.5,
        "test_fraction": 0,
        "sample": {"prompt": "", "prompt_file": "my.yaml"},
    } | params
    Path("my.yaml").write_text(json.dumps(params), encoding="utf-8")
    return CliRunner().invoke(stage, ["--config", "my.yaml", "--out", str(out)])


def assert_one_line(result: Result, *parts: str) -> None:
    """Assert exit code 1, no traceback, one line on stderr with `parts`, and nothing written."""
    assert isinstance(result.exception, SystemExit), result.exc_info
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for part in parts:
        assert part in result.stderr
    assert not list(Path().glob("out/*"))


def make_files(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"{name}\n", encoding="utf-8")
