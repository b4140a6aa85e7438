"""`python -m nanogpt2 seeds`, with real DVC in a temporary clone."""

import statistics
from pathlib import Path

import pytest
import warm
from click.testing import CliRunner
from workspace import Workspace

from nanogpt2.__main__ import main


def test_two_settings_are_run_with_the_same_seeds_and_compared(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "clone" / "project")
    shown = workspace.run(
        warm.executable(), "-m", "nanogpt2", "seeds", "--n", "2",
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
    assert shown.stderr.count("Running stage 'train'") == 2  # the others come from the cache
    assert workspace.git("status", "--porcelain") == ""
    assert not (workspace.root / "metrics/eval.json").exists()  # the workspace stays as it was


@pytest.mark.parametrize("setting", ["seed=3", "learning_rate"])
def test_a_setting_that_cannot_be_run_is_refused_before_anything_is(setting: str) -> None:
    result = CliRunner().invoke(main, ["seeds", "-S", "dropout=0.1", "--against", setting])
    assert result.exit_code == 1
    assert result.stderr == f"found {setting}; allowed: key=value, where key is not seed\n"


def test_one_seed_has_no_spread() -> None:
    assert CliRunner().invoke(main, ["seeds", "--n", "1"]).exit_code == 2
