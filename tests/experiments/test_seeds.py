"""`python -m nanogpt2 seeds`, with real DVC in a temporary clone."""

import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from click.testing import CliRunner
from workspace import Workspace

from nanogpt2.__main__ import main
from nanogpt2.base.files import sha256
from nanogpt2.experiments.seeds import check_ascii, comparable_figure, read_seeds


def test_two_settings_are_run_with_the_same_seeds_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    log = (workspace.root / "logs/seeds.log").read_text(encoding="utf-8")
    assert log.count("Running stage 'train'") == 2  # the others come from the cache
    assert len(shown.stderr.splitlines()) == 4  # one for each experiment
    assert workspace.git("status", "--porcelain") == ""
    assert not (workspace.root / "metrics/eval.json").exists()  # the workspace stays as it was
    monkeypatch.chdir(workspace.root)
    monkeypatch.setattr(sys, "executable", warm.executable())
    assert read_seeds() == {}  # none is of params.yaml as it is
    digest = sha256(b"learning_rate=1e-2")[:6]
    for seed in (1, 2):  # as if it were
        workspace.dvc("exp", "rename", f"seed-{seed}-{digest}", f"seed-{seed}-{sha256(b'')[:6]}")
    losses = {seed: row["val"]["loss"] for seed, row in read_seeds().items()}
    assert losses == pytest.approx({1: first[0], 2: first[1]}, abs=1e-4)


@pytest.mark.parametrize("setting", ["seed=3", "learning_rate"])
def test_a_setting_that_cannot_be_run_is_refused_before_anything_is(setting: str) -> None:
    result = CliRunner().invoke(main, ["seeds", "-S", "dropout=0.1", "--against", setting])
    assert result.exit_code == 1
    assert result.stderr == f"found {setting}; allowed: key=value, where key is not seed\n"


def test_one_seed_has_no_spread() -> None:
    assert CliRunner().invoke(main, ["seeds", "--n", "1"]).exit_code == 2


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a commit and DVC in a folder whose path has a letter beyond ASCII."""
    folder = tmp_path / "José"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "executable", warm.executable())
    commands = [
        "git init --quiet",
        f"{warm.executable()} -m dvc init --quiet",
        "git -c user.name=a -c user.email=a@example.org commit --quiet --all --message start",
    ]
    for command in commands:
        subprocess.run(command.split(), check=True)
    return folder


def test_letters_beyond_ascii_that_dvc_cannot_write_are_named_first(project: Path) -> None:
    seeds = CliRunner().invoke(main, ["seeds"])
    assert "its cache has a path with letters beyond ASCII" in seeds.stderr
    assert f"{project}/.dvc/cache: dvc cache dir --local" in seeds.stderr
    mend = ["cache", "dir", "--local", str(project.parent / "cache")]
    subprocess.run([warm.executable(), "-m", "dvc", *mend], check=True)
    subprocess.run(["git", "config", "user.name", "José"], check=True)
    seeds = CliRunner().invoke(main, ["seeds"])
    assert ".git/config has letters beyond ASCII: name = José; set it for yourself" in seeds.stderr
    subprocess.run(["git", "config", "--unset", "user.name"], check=True)
    check_ascii()


def test_a_run_that_fails_shows_its_lines(project: Path) -> None:
    mend = ["cache", "dir", "--local", str(project.parent / "cache")]
    subprocess.run([warm.executable(), "-m", "dvc", *mend], check=True)
    seeds = CliRunner().invoke(main, ["seeds"])  # there is no pipeline
    assert seeds.exit_code == 1
    lines = seeds.stderr.splitlines()
    assert lines[0].endswith(": seed=1 (lines in logs/seeds.log)")
    assert any(line.startswith("ERROR: ") for line in lines[1:])
    assert lines[-1].endswith("failed; the lines above say why")


def test_runs_in_other_tokens_are_compared_by_bits_per_byte() -> None:
    chars = {"loss": 1.5, "bits_per_byte": 2.2, "tokens": 900.0}
    pieces = {"loss": 3.5, "bits_per_byte": 2.1, "tokens": 300.0}
    assert comparable_figure([chars, chars]) == "loss"
    assert comparable_figure([chars, pieces]) == "bits_per_byte"
