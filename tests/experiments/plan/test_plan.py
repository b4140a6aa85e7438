"""`python -m nanogpt2 plan`: a text and a time become params.yaml."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from imports import ROOT

from nanogpt2.__main__ import main
from nanogpt2.config import yaml12
from nanogpt2.config.config import get_config
from nanogpt2.experiments.plan import choose, pilot, plan, planner, words
from nanogpt2.text.reading.shakespeare import shakespeare_text

SMALL = replace(pilot.PILOT, width=64, batch=4, steps=12)


@pytest.fixture(scope="module")
def plays() -> str:
    return shakespeare_text()[:90_000]


@pytest.fixture
def params(plays: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A text of 90 kB, and a pilot, timings and a rehearsal of some steps alone."""
    monkeypatch.chdir(tmp_path)
    for module in (pilot, plan, planner, words):
        monkeypatch.setattr(module, "PILOT", SMALL)
    monkeypatch.setattr(pilot, "PILOT_JUDGED", (3, 6, 12))
    monkeypatch.setattr(planner, "TIMED", ())
    monkeypatch.setattr(planner, "SECONDS", 0.01)
    for module in (plan, planner):
        monkeypatch.setattr(module, "LEAST_REHEARSED", 12)
    monkeypatch.setattr(planner, "MOST_TIMED", 2)
    monkeypatch.setattr(choose, "SIZES", ((2, 64), (2, 96)))
    monkeypatch.setattr(choose, "TOKENS", (1024,))
    monkeypatch.setattr(plan, "VOCABULARIES", (512,))
    Path("plays.txt").write_text(plays, encoding="utf-8")
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    changes = {"corpus": "plays.txt", "device": "cpu", "tokenizer": "auto", "mlp": "relu2"}
    Path("params.yaml").write_text(yaml12.replace_values(text, changes), encoding="utf-8")
    return Path("params.yaml")


def run(*options: str) -> str:
    options = (*options, "--rehearse", "0.001")
    result = CliRunner().invoke(main, ["plan", *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


PREDICTED = re.compile(r"validation loss ([\d.]+) \+- ([\d.]+) nats a character, ([\d.]+) minutes")


def test_a_plan_says_what_it_expects_and_writes_what_trains(params: Path) -> None:
    """And for a lower quality less time; a dry run leaves the file."""
    before = yaml12.read(params)
    told = run("--hours", "1")
    assert re.search(r"^plan: a plan of [\d,]+ steps in .* -> params.yaml$", told, re.MULTILINE)
    loss, sure, minutes = map(float, PREDICTED.findall(told)[0])
    assert 1 < loss < 4
    assert 0 < sure < loss / 2
    assert minutes == 60
    for line in (
        "text: ",
        "machine: ",
        "the start of ",
        "plan: ",
        "  twice the minutes: ",
        "  twice the text: ",
    ):
        assert f"\n{line}" in f"\n{told}"
    assert 1 <= told.count("the start of ") <= plan.MOST_REHEARSED
    config = get_config(params)
    assert config.tokenizer in ("char", "bpe")
    assert config.mlp is None  # the law was not fitted to others
    assert f"{config.n_layer} layers of {config.n_embd}" in told
    assert config.max_iters // config.eval_interval in (20, 21)  # a small part of an hour
    after = yaml12.read(params)
    kept = ("corpus", "seed", "sample", "device")
    assert {key: after[key] for key in kept} == {key: before[key] for key in kept}
    written = params.read_bytes()
    lower = PREDICTED.findall(run("--quality", f"{1.1 * loss}", "--dry-run"))[0]
    assert float(lower[2]) < 60
    assert params.read_bytes() == written


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--quality", "0.3"], "--quality: found 0.3; allowed: what can be reached"),
        (["--minutes", "0.001"], "seconds are too few"),
        (["--minutes", "1", "--hours", "1"], "give one of them"),
    ],
)
def test_what_cannot_be_is_one_line(params: Path, options: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["plan", *options, "--rehearse", "0.001"])
    assert result.exit_code == 1
    errors = [line for line in result.stderr.splitlines() if not line.startswith("plan: ")]
    assert said in errors[-1]
    assert yaml12.read(params)["tokenizer"] == "auto"


def test_without_the_extra_of_bpe_characters_are_planned_with(
    params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    told = run("--minutes", "5")
    assert "warning: characters alone are planned with: tiktoken is not installed" in told
    assert yaml12.read(params)["tokenizer"] == "char"
