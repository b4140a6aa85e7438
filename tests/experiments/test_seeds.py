"""`python -m nanogpt2 seeds`, with real DVC in a temporary clone."""

import statistics
import sys
from pathlib import Path

import pytest
import warm
from click.testing import CliRunner
from workspace import Workspace

from nanogpt2.__main__ import main
from nanogpt2.base.files import sha256
from nanogpt2.experiments.seeds import comparable_figure, read_seeds


def test_two_settings_are_run_with_the_same_seeds_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace(tmp_path / "clone" / "project")
    shown = workspace.run(
        warm.executable(), "-m", "nanogpt2", "seeds", "--n", "2", "--jobs", "2",
        "-S", "learning_rate=1e-2",
        "--against", "learning_rate=1e-2", "--against", "evaluate.stride=4",
    )  # fmt: skip
    lines = shown.stdout.splitlines()
    assert lines[0] == "learning_rate=1e-2: val loss"
    assert lines[4] == "learning_rate=1e-2 evaluate.stride=4: val loss"
    first, second = ([float(line[-6:]) for line in lines[at : at + 2]] for at in (1, 5))
    assert first[0] != first[1]
    assert first != second
    mean, spread = (float(words.split()[-1]) for words in lines[3].split(","))
    assert mean == pytest.approx(statistics.fmean(first), abs=2e-4)
    assert spread == pytest.approx(statistics.stdev(first), abs=2e-4)
    by_seed = [float(word) for word in lines[9].partition(": ")[2].split(", ")]
    assert by_seed == pytest.approx([first[0] - second[0], first[1] - second[1]], abs=2e-4)
    assert lines[-1].startswith("  verdict: ")
    experiments = workspace.dvc("exp", "list", "--name-only").split()
    assert sorted(name[:6] for name in experiments) == ["seed-1", "seed-1", "seed-2", "seed-2"]
    logs = [(workspace.root / f"logs/sweeps/{name}.log").read_text("utf-8") for name in experiments]
    assert sum("Running stage 'train'" in log for log in logs) == 2  # two come from the cache
    assert sum("(lines in logs/sweeps/seed-" in line for line in shown.stderr.splitlines()) == 4
    assert workspace.git("status", "--porcelain") == ""
    assert not (workspace.root / "metrics/eval.json").exists()  # the workspace stays as it was
    monkeypatch.chdir(workspace.root)
    monkeypatch.setattr(sys, "executable", warm.executable())
    digest = sha256(b"learning_rate=1e-2")[:6]
    for seed in (1, 2):  # as if it were of params.yaml as it is
        workspace.dvc("exp", "rename", f"seed-{seed}-{digest}", f"seed-{seed}-{sha256(b'')[:6]}")
    losses = {seed: row["val"]["loss"] for seed, row in read_seeds().items()}
    assert losses == pytest.approx({1: first[0], 2: first[1]}, abs=1e-4)


@pytest.mark.parametrize(
    ("setting", "allowed"),
    [
        ("seed=3", "key=value, where key is not seed"),
        ("learning_rate", "key=value, where key is not seed"),
        ("dropout=0.1,0.2", "one value; sweep takes several"),
    ],
)
def test_a_setting_that_cannot_be_run_is_refused_before_anything_is(
    setting: str, allowed: str
) -> None:
    result = CliRunner().invoke(main, ["seeds", "-S", "dropout=0.1", "--against", setting])
    assert result.exit_code == 1
    assert result.stderr == f"found {setting}; allowed: {allowed}\n"


def test_one_seed_has_no_spread() -> None:
    assert CliRunner().invoke(main, ["seeds", "--n", "1"]).exit_code == 2


def test_runs_in_other_tokens_are_compared_by_bits_per_byte() -> None:
    chars = {"loss": 1.5, "bits_per_byte": 2.2, "tokens": 900.0}
    pieces = {"loss": 3.5, "bits_per_byte": 2.1, "tokens": 300.0}
    assert comparable_figure([chars, chars]) == "loss"
    assert comparable_figure([chars, pieces]) == "bits_per_byte"
