"""`python -m nanogpt2 seeds`, with real DVC in a temporary clone."""

import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from click.testing import CliRunner
from every import in_every
from workspace import Workspace

from nanogpt2.__main__ import main
from nanogpt2.base.system.files import sha256
from nanogpt2.config.config import get_config
from nanogpt2.decode.ensemble.checkpoints import load_checkpoints
from nanogpt2.evaluate.evaluate import evaluate_splits
from nanogpt2.experiments.seeds import comparable_figure, read_seeds

Done = subprocess.CompletedProcess[str]
DIGEST = sha256(b"learning_rate=1e-2")[:6]


def run_seeds(workspace: Workspace, *options: str, check: bool = True) -> Done:
    command = (warm.executable(), "-m", "nanogpt2", "seeds", "--n", "2", "--jobs", "2")
    return workspace.run(*command, "-S", "learning_rate=1e-2", *options, check=check)


def losses_in(done: Done) -> dict[str, float]:
    """Return the first number in each line that was shown, by what stands before it."""
    lines = re.findall(r"^ *([^:]*): (?:val loss )?([-+]?\d\.\d{4})", done.stdout, re.MULTILINE)
    return {name: float(number) for name, number in lines}


def experiments(workspace: Workspace) -> list[str]:
    return sorted(workspace.dvc("exp", "list", "--name-only").split())


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Done]:
    """A project in which two settings were compared, and what was shown."""
    workspace = Workspace(tmp_path_factory.mktemp("clone") / "project")
    options = ("learning_rate=1e-2", "evaluate.stride=4")
    return workspace, run_seeds(workspace, *(w for each in options for w in ("--against", each)))


def test_two_settings_are_run_with_the_same_seeds_and_compared(
    compared: tuple[Workspace, Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, shown = compared
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
    names = experiments(workspace)
    assert [name[:6] for name in names] == ["seed-1", "seed-1", "seed-2", "seed-2"]
    logs = [(workspace.root / f"logs/sweeps/{name}.log").read_text("utf-8") for name in names]
    assert sum("Running stage 'train'" in log for log in logs) == 2  # two come from the cache
    assert sum("(lines in logs/sweeps/seed-" in line for line in shown.stderr.splitlines()) == 4
    assert workspace.git("status", "--porcelain") == ""
    assert not (workspace.root / "metrics/eval.json").exists()  # the workspace stays as it was
    workspace = workspace.copy(tmp_path / "copy")
    monkeypatch.chdir(workspace.root)
    monkeypatch.setattr(sys, "executable", warm.executable())
    for seed in (1, 2):  # as if it were of params.yaml as it is
        workspace.dvc("exp", "rename", f"seed-{seed}-{DIGEST}", f"seed-{seed}-{sha256(b'')[:6]}")
    losses = {seed: row["val"]["loss"] for seed, row in read_seeds().items()}
    assert losses == pytest.approx({1: first[0], 2: first[1]}, abs=1e-4)


def test_a_student_of_the_seeds_reproduces_in_another_clone(
    compared: tuple[Workspace, Done], tmp_path: Path
) -> None:
    workspace, _ = compared
    before, options = experiments(workspace), ("--distil", "--student", "dropout=0.3")
    done = run_seeds(workspace, *options)
    assert done.stderr.count("(lines in logs/sweeps/") == 1  # the seeds are taken over
    (student,) = set(experiments(workspace)) - set(before)
    found = losses_in(done)
    assert found[f"{student} (dropout=0.3)"] - found["seeds 1 to 2"] == pytest.approx(
        found["minus the mean of their probabilities"], abs=2e-4
    )
    assert workspace.git("status", "--porcelain") == ""
    assert [path.name for path in (workspace.root / "data/teachers").iterdir()] == ["README.md"]
    workspace.git("clone", "--quiet", ".", str(tmp_path / "other"))
    other = Workspace.at(tmp_path / "other", workspace.env)
    other.git("fetch", "--quiet", "origin", "refs/exps/*:refs/exps/*")
    other.dvc("cache", "dir", "--local", str(workspace.root / ".dvc/cache"))
    other.run("dvc", "exp", "apply", student, check=False)  # less the samples, which it lacks
    paths = sorted((other.root / "data/teachers").glob("*.pt"))
    assert [path.stem for path in paths] == [f"seed-1-{DIGEST}", f"seed-2-{DIGEST}"]
    trained = load_checkpoints(paths, device="cpu", tokenizer=Path("none"))
    config = get_config(other.root / "params.yaml")
    assert config.teachers == [f"data/teachers/{path.name}" for path in paths]
    data, knobs = other.root / "data/prepared", config.evaluate
    result = evaluate_splits(trained, data, batch_size=knobs.batch_size, stride=knobs.stride)
    assert result.figures["val"]["loss"] == pytest.approx(found["seeds 1 to 2"], abs=1e-4)
    assert f"of their probabilities {result.figures['test']['loss']:.4f}" in done.stdout
    lock = (other.root / "dvc.lock").read_bytes()
    assert other.stages_run("repro", "evaluate") == []
    assert other.stages_run("repro", "--force", "--single-item", "train") == ["train"]
    assert (other.root / "dvc.lock").read_bytes() == lock
    again = run_seeds(workspace, *options)
    assert again.stdout == done.stdout
    assert "(lines in" not in again.stderr


@in_every("what it trains follows a teacher as the student above does")
def test_a_chain_goes_on_from_the_first_seed(compared: tuple[Workspace, Done]) -> None:
    workspace, shown = compared
    done = run_seeds(workspace, "--chain", "--ensemble")
    (first, alone), (second, taught), (_, both) = losses_in(done).items()
    assert (first, second[:8]) == (f"seed-1-{DIGEST}", "chain-2-")
    assert f"  seed 1: {alone:.4f}\n" in shown.stdout
    assert both < max(alone, taught)
    assert done.stderr.count("(lines in logs/sweeps/") == 1
    assert f"{second}: learning_rate=1e-2 seed=2 teachers=[data/teachers/{first}.pt]" in done.stderr
    assert second in experiments(workspace)
    assert workspace.git("status", "--porcelain") == ""


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--distil", "--student", "teachers=[a.pt]"], "the seeds are the teachers"),
        (["--distil", "--student", "dropout=0.1,0.2"], "one value; sweep takes several"),
        (["--student", "dropout=0.1"], "--student is of what --distil or --chain trains"),
        (["--distil", "--chain"], "give one of --distil and --chain"),
        (["--ensemble", "--against", "dropout=0.1"], "--against and --split go without"),
    ],
)
def test_what_goes_not_together_is_said_before_anything_runs(options: list[str], line: str) -> None:
    done = CliRunner().invoke(main, ["seeds", *options])
    assert done.exit_code in (1, 2)
    assert line in done.stderr


def test_a_student_has_the_tokens_of_its_teachers(compared: tuple[Workspace, Done]) -> None:
    done = run_seeds(compared[0], "--distil", "--student", "block_size=8", check=False)
    assert done.stderr.startswith("found block_size=8; allowed: keys that change neither text nor")


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
