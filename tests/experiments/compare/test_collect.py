"""Runs as git and DVC keep them: all are found, with what DVC says of them, and in groups."""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import warm
from kept import Experiment, make_project

from nanogpt2.base.system.errors import DataError
from nanogpt2.experiments.compare.cache import find_cache
from nanogpt2.experiments.compare.collect import collect_runs
from nanogpt2.experiments.compare.columns import COLUMNS, changes, measure_noise
from nanogpt2.experiments.compare.groups import group_runs
from nanogpt2.experiments.compare.reproduce import list_commands
from nanogpt2.experiments.compare.runs import Run, tokens_per_step

LOSSES = {1: 1.60, 2: 1.58, 3: 1.61}
EXPERIMENTS = [
    *(Experiment(f"plain-{seed}", {"seed": seed}, loss) for seed, loss in LOSSES.items()),
    Experiment("slow", {"learning_rate": 0.001}, 1.7),
]
VAL_LOSS = COLUMNS[0]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template") / "project"
    make_project(root, EXPERIMENTS)
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(template, root)
    monkeypatch.chdir(root)
    return root


def git(*words: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *words], check=True, capture_output=True)


def names(runs: Sequence[Run]) -> list[str]:
    return [run.name for run in runs]


def named(name: str, runs: Sequence[Run]) -> Run:
    return next(run for run in runs if run.name == name)


def test_experiments_are_those_that_dvc_shows_with_the_same_figures_and_parameters(
    project: Path,
) -> None:
    done = subprocess.run(
        [warm.executable(), "-m", "dvc", "exp", "show", "--json"],
        env=os.environ | {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(project / "site")},
        capture_output=True, check=True,
    )  # fmt: skip
    (head,) = (each for each in json.loads(done.stdout) if each.get("experiments"))
    shown = {each["name"]: each["revs"][0]["data"] for each in head["experiments"]}
    runs = {run.name: run for run in collect_runs() if run.kind == "experiment"}
    assert runs.keys() == shown.keys() == {each.name for each in EXPERIMENTS}
    for name, data in shown.items():
        metrics = data["metrics"]["metrics/eval.json"]["data"]
        assert runs[name].figures["val.loss"] == metrics["val"]["loss"]
        params = data["params"]["params.yaml"]["data"]
        for key in ("learning_rate", "seed", "attention_dropout"):
            assert runs[name].params[key] == params[key]


def test_a_workspace_as_it_was_committed_is_no_row_of_its_own(project: Path) -> None:
    runs = collect_runs()
    assert names(runs)[0] == "HEAD"
    assert "is in the workspace" in runs[0].notes
    assert len(runs) == 1 + len(EXPERIMENTS)


def test_a_workspace_with_other_results_is_a_row(project: Path) -> None:
    Path("plots/loss.csv").write_text("iter,train_loss,val_loss\n10,3.0,3.5\n", encoding="utf-8")
    text = Path("dvc.lock").read_text(encoding="utf-8")
    Path("dvc.lock").write_text(text.replace(collect_runs()[0].hashes["samples"], "0" * 32))
    runs = collect_runs()
    assert names(runs)[:2] == ["workspace", "HEAD"]
    assert runs[0].curve == {"iter": [10.0], "train_loss": [3.0], "val_loss": [3.5]}
    assert list_commands(runs[0]) == []


def test_parameters_are_those_of_the_run_not_later_ones(project: Path) -> None:
    text = Path("params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text.replace("batch_size: 16 ", "batch_size: 99 "))
    git("commit", "--all", "--message", "Edit")
    head = collect_runs()[0]
    assert head.params["batch_size"] == 16
    assert any("batch_size" in note for note in head.notes)


def test_named_revisions_and_ranges_are_rows_too(project: Path) -> None:
    git("tag", "first")
    git("commit", "--allow-empty", "--message", "Second")
    git("commit", "--allow-empty", "--message", "Third")
    assert "first" in names(collect_runs(["first"]))
    ranged = [run for run in collect_runs(["first..HEAD"]) if run.kind == "commit"]
    assert [run.subject for run in ranged] == ["Third", "Second"]


@pytest.mark.parametrize("name", ["nowhere", "--all", ""])
def test_a_revision_that_git_does_not_know_is_named(project: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"^{name}: git knows no"):
        collect_runs([name])


def test_a_project_in_a_folder_of_a_repository_is_read_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path / "whole", [])
    monkeypatch.chdir(tmp_path / "whole")
    Path("inner").mkdir()
    git("mv", "params.yaml", "dvc.lock", "metrics", "plots", "inner")
    git("commit", "--message", "Move")
    monkeypatch.chdir(tmp_path / "whole/inner")
    (run,) = collect_runs()
    assert run.figures["val.loss"] == pytest.approx(1.59)


@pytest.mark.parametrize("repository", [True, False])
def test_without_any_run_one_line_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    if repository:
        git("init")
    with pytest.raises(DataError, match=r"no run here yet.*dvc repro") as raised:
        collect_runs()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["", "{", "[1]", "iter,val_loss\n1,x\n2", "\x00"])
def test_files_that_are_damaged_are_as_if_they_were_missing(project: Path, content: str) -> None:
    for name in ("metrics/eval.json", "plots/loss.csv", "dvc.lock", "params.yaml"):
        Path(name).write_text(content, encoding="utf-8")
    assert names(collect_runs())[0] in ("HEAD", "workspace")


# --- Seeds ---


def test_runs_that_differ_by_their_seeds_alone_are_a_group(project: Path) -> None:
    runs = collect_runs()
    (group,) = group_runs(runs)
    assert {runs[at].name for at in group.members} == {"HEAD", "plain-1", "plain-2", "plain-3"}


def test_the_band_is_the_95_percent_interval_of_the_mean(project: Path) -> None:
    runs = [run for run in collect_runs() if run.name.startswith("plain")]
    (group,) = group_runs(runs)
    last = [run.curve["val_loss"][-1] for run in runs]
    margin = 4.302653 * statistics.stdev(last) / 3**0.5  # t of 2 degrees of freedom, from a table
    assert group.curve["val_loss"][-1] == pytest.approx(statistics.fmean(last), abs=1e-6)
    assert group.curve["val_loss_high"][-1] == pytest.approx(
        statistics.fmean(last) + margin, abs=1e-5
    )
    assert group.curve["val_loss_low"][-1] == pytest.approx(
        statistics.fmean(last) - margin, abs=1e-5
    )


def test_runs_of_other_code_are_no_group(project: Path) -> None:
    text = Path("dvc.lock").read_text(encoding="utf-8")
    entry = "- path: nanogpt2/train\n      hash: md5\n      md5: "
    at = text.index(entry) + len(entry)
    Path("dvc.lock").write_text(text[:at] + "0" * 32 + text[at + 32 :], encoding="utf-8")
    git("commit", "--all", "--message", "Other code")
    runs = collect_runs()
    (group,) = group_runs(runs)
    assert "HEAD" not in {runs[at].name for at in group.members}
    assert changes(runs[0], named("plain-1", runs)) == ["other code"]


def test_what_changed_names_parameters_and_their_values(project: Path) -> None:
    runs = collect_runs()
    assert changes(named("slow", runs), runs[0]) == ["learning_rate 0.001"]
    assert changes(named("plain-1", runs), runs[0]) == []


def test_the_noise_is_that_of_a_difference_of_two_runs(project: Path) -> None:
    runs = [run for run in collect_runs() if run.name.startswith("plain")]
    noise = measure_noise(VAL_LOSS, runs, group_runs(runs))
    assert noise is not None
    deviation = statistics.stdev(LOSSES.values())
    assert noise.deviation == pytest.approx(deviation)
    # t of 2 degrees of freedom and 99%, from a table
    assert noise.margin == pytest.approx(9.924843 * deviation * 2**0.5)
    assert measure_noise(VAL_LOSS, runs, []) is None


def test_a_step_trains_on_what_batch_block_and_accumulation_say() -> None:
    sizes = {"batch_size": 4, "gradient_accumulation_steps": 3, "block_size": 16}
    assert tokens_per_step(sizes) == 192
    assert tokens_per_step({"batch_size": 4}) is None


# --- The way back, the cache, trainings under way ---


def test_an_experiment_comes_back_from_its_commit_by_its_name(project: Path) -> None:
    run = named("slow", collect_runs())
    checkout, apply, repro = list_commands(run)
    assert checkout == f"git checkout {run.base}"
    assert (apply, repro) == ("dvc exp apply slow", "dvc repro")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert run.base == head.stdout.strip()


def test_the_cache_is_where_dvc_is_told_to_have_it(project: Path) -> None:
    assert find_cache(project) == project / ".dvc/cache"
    words = ["cache", "dir", "--local", "../elsewhere"]
    subprocess.run([warm.executable(), "-m", "dvc", *words], check=True)
    assert find_cache(project).resolve() == (project.parent / "elsewhere").resolve()


def write_live(path: Path, process: object) -> None:
    row = {"iter": 5, "train_loss": 3.0, "val_loss": 3.5, "learning_rate": 0.1}
    state = {
        **{"process": process, "max_iters": 10, "params": {"seed": 1}, "iter": 7},
        **{"history": [row], "tokens_per_second": 12.0},
    }
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(state), encoding="utf-8")


@pytest.mark.parametrize("folder", [".", ".dvc/tmp/exps/tmp123", ".dvc/tmp/exps/standalone/tmp123"])
def test_a_training_under_way_is_a_row_here_and_in_a_copy_of_dvc(
    project: Path, folder: str
) -> None:
    me = psutil.Process()
    write_live(Path(folder, "logs/live.json"), [me.pid, me.create_time()])
    run = collect_runs()[0]
    assert (run.kind, run.curve["val_loss"], run.progress["iter"]) == ("running", [3.5], 7)


def test_a_training_whose_process_is_gone_is_none(project: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        began = psutil.Process(process.pid).create_time()
        process.communicate(b"\n")
    write_live(Path("logs/live.json"), [process.pid, began])
    assert names(collect_runs())[0] == "HEAD"
