"""Sharing as the guide has it, through a folder, a real sshd and a real S3 server on loopback."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from every import in_every, some
from imports import ROOT
from processes import training_process
from remotes import PLACES, S3_KEYS, Place, S3Server, Server, SshServer
from workspace import Workspace, files_in

GUIDE = (ROOT / "docs/sharing.md").read_text(encoding="utf-8")
HUB = "git@team-server:nanogpt2.git"


def blocks(heading: str) -> list[str]:
    """Return the commands under a heading of the guide, block by block."""
    section = re.split(rf"(?m)^#+ {heading}$", GUIDE)[1]
    section = re.split(r"(?m)^#+ (?=[A-Z])", section)[0]
    found = re.findall(r"(?ms)^```sh\n(.*?)^```$", section)
    assert found, heading
    return list(found)


class Team:
    """A run that is committed, git's origin, and a place for data; and clones of them."""

    def __init__(self, first: Workspace, root: Path, place: Place, kind: str) -> None:
        self.root, self.place, self.kind = root, place, kind
        self.ours = first.copy(root / "ours")
        path = os.pathsep.join([str(place.root / "bin"), self.ours.env["PATH"]])
        self.ours.env |= {**place.env, "PATH": path}
        self.hub = (
            f"ssh://team-server{root}/nanogpt2.git"
            if kind == "ssh"
            else f"file://{root}/nanogpt2.git"
        )
        self.ours.git("init", "--quiet", "--bare", str(root / "nanogpt2.git"))
        self.ours.git("remote", "add", "origin", self.hub)
        self.ours.git("push", "--quiet", "--set-upstream", "origin", "HEAD")

    def follow(self, who: Workspace, *commands: str, check: bool = True) -> str:
        """Run a block of the guide in the folder of `who`, at places that are here."""
        script = "set -e\n" + "\n".join(commands)
        for old, new in {
            "/mnt/team/nanogpt2": str(self.place.store),
            "/srv/nanogpt2": str(self.place.store),
            "make setup && source .venv/bin/activate": "",  # that of the tests is active
            HUB: self.hub,
        }.items():
            script = script.replace(old, new)
        return who.run("sh", "-c", script, check=check).stdout

    def take(self, name: str) -> Workspace:
        """Return a fresh clone that has no data."""
        self.ours.git("clone", "--quiet", self.hub, str(self.root / name))
        return Workspace.at(self.root / name, self.ours.env)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A run that nobody has but us."""
    return Workspace.trained(tmp_path_factory.mktemp("run") / "project")


@pytest.fixture(scope="module", params=list(PLACES))
def team(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Team]:
    """A team that has shared its run by the guide."""
    root = tmp_path_factory.mktemp(request.param)
    place = PLACES[request.param](root / "place")
    place.start()
    team = Team(request.getfixturevalue("first"), root, place, request.param)
    headings = {
        "folder": "A folder or a network drive",
        "ssh": "A machine over SSH",
        "s3": "A bucket on S3",
    }
    team.follow(team.ours, *blocks(headings[request.param]), *blocks("Send it"))
    yield team
    place.stop()


def all_of(workspace: Workspace) -> dict[str, bytes]:
    """Return what a fault must not touch: the workspace and DVC's cache."""
    caches = files_in(workspace.root / ".dvc/cache")
    names = workspace.git("ls-files").splitlines()
    paths = [*caches, *(workspace.root / name for name in (*names, *workspace.outputs()))]
    return {str(path): path.read_bytes() for path in paths if path.is_file()}


def refused(workspace: Workspace, action: str, symptom: str) -> None:
    """Assert that DVC fails with a symptom that the guide explains, and that nothing is lost."""
    before = all_of(workspace)
    failed = workspace.run("dvc", action, check=False)
    assert failed.returncode != 0
    assert symptom in failed.stderr
    assert "Traceback" not in failed.stderr
    assert f"`{symptom}`" in GUIDE.partition("## When it fails")[2]
    assert all_of(workspace) == before


# --- By the guide ---


def test_who_takes_a_run_runs_nothing_and_has_all_of_it(team: Team) -> None:
    shown = team.follow(Workspace.at(team.root, team.ours.env), *blocks("Take a run"))
    assert "Running stage" not in shown
    assert "Data and pipelines are up to date." in shown
    assert "fit together" in shown
    taken = Workspace.at(team.root / "nanogpt2", team.ours.env)
    assert taken.outputs() == team.ours.outputs()
    assert taken.git("status", "--porcelain") == ""


@pytest.mark.parametrize("team", ["ssh"], indirect=True)
def test_an_experiment_changes_one_line_reruns_what_reads_it_and_travels_by_its_name(
    team: Team,
) -> None:
    before = team.ours.outputs()
    changes = ("-S", "sample.temperature=1.2")
    rerun = team.ours.stages_run("exp", "run", "--name", "bold", *changes)
    assert sorted(rerun) == ["sample", "validate"]
    added = re.findall("(?m)^[+]", team.ours.git("diff", "params.yaml"))
    assert len(added) == 2  # the file's name, and a line
    bold = team.ours.outputs()
    team.ours.git("restore", ".")
    team.ours.dvc("checkout", "--quiet")
    push, pull = blocks("Experiments")
    team.follow(team.ours, push)
    other = team.take("colleague")
    assert "bold" in team.follow(other, pull)
    samples = {name: found for name, found in other.outputs().items() if "samples" in name}
    assert samples
    assert samples.items() <= bold.items()
    assert not samples.items() <= before.items()


@pytest.mark.parametrize("team", ["folder"], indirect=True)
def test_a_released_model_is_fetched_without_a_clone_and_writes(team: Team) -> None:
    release, fetch = blocks("Release a model")
    team.follow(team.ours, release)
    (team.root / "user").mkdir()
    user = Workspace.at(team.root / "user", team.ours.env | {"PYTHONPATH": str(ROOT)})
    assert "Thou" in team.follow(user, fetch)
    model = (user.root / "best_model.pt").read_bytes()
    assert model == (team.ours.root / "checkpoints/best_model.pt").read_bytes()
    older = user.run("dvc", "artifacts", "get", team.hub, "model", "--rev", "v0.9.0", check=False)
    assert "Unable to find artifact" in older.stderr


# --- Faults ---


def test_a_server_that_is_down_is_named(team: Team) -> None:
    if not isinstance(team.place, Server):
        pytest.skip("a folder has no server")
    symptom = {"ssh": "Connect call failed", "s3": "Could not connect to the endpoint URL"}
    user = team.take("early")  # by git's server, which is the same
    with team.place.changed():
        refused(team.ours, "push", symptom[team.kind])
        refused(user, "pull", symptom[team.kind])


def test_who_may_not_come_in_is_told_so(team: Team) -> None:
    user = team.take("stranger")
    if isinstance(team.place, SshServer):
        team.place.trust("other_key")
        refused(user, "pull", "Permission denied for user")
        team.place.trust("key")
    elif isinstance(team.place, S3Server):
        wrong = user.env | {"AWS_SECRET_ACCESS_KEY": "wrong"}
        refused(Workspace.at(user.root, wrong), "pull", "An error occurred (403)")
        none = {name: value for name, value in user.env.items() if name not in S3_KEYS}
        refused(Workspace.at(user.root, none), "pull", "Unable to locate credentials")
    else:
        pytest.skip("a folder asks for no key")


@pytest.mark.parametrize("team", some(PLACES, "folder", "s3"), indirect=True)
def test_what_a_push_left_out_is_missed_and_sent_by_the_next(team: Team) -> None:
    lost = next(path for path in team.place.objects() if path.suffix == ".dir")
    with team.place.changed():
        lost.unlink()
    user = team.take("too_soon")
    failed = user.run("dvc", "pull", check=False)
    assert failed.returncode != 0
    team.ours.dvc("push")
    user.dvc("pull")
    assert user.outputs() == team.ours.outputs()


@pytest.mark.parametrize("team", ["folder", "s3"], indirect=True)
def test_a_damaged_file_is_not_taken_and_the_guide_finds_it(team: Team) -> None:
    damaged = team.place.objects()[-1]
    whole, other = damaged.read_bytes(), damaged.read_bytes()[:-1] + b"?"
    with team.place.changed():
        damaged.chmod(0o644)
        damaged.write_bytes(other)
    user = team.take("lucky")
    failed = user.run("dvc", "pull", check=False)
    assert "Checkout failed for following targets" in failed.stderr
    assert other not in all_of(user).values()
    if not isinstance(team.place, S3Server):
        found = team.follow(user, *blocks("Damaged files"), check=False)
        assert [line for line in found.splitlines() if damaged.name in line] == found.splitlines()
    with team.place.changed():
        damaged.write_bytes(whole)
    user.dvc("pull")
    assert user.outputs() == team.ours.outputs()


# --- DVC's extension for VS Code ---


@in_every("tests/experiments/compare/test_collect.py reads what dvc exp show gives")
def test_the_extension_for_vs_code_shows_parameters_metrics_and_curves_while_training_goes_on(
    first: Workspace, tmp_path: Path
) -> None:
    """By its own commands; it gives them again when metrics/train.json changes."""
    here = first.copy(tmp_path / "project")
    path = here.root / "params.yaml"
    text = path.read_text(encoding="utf-8").replace("max_iters: 8", "max_iters: 100000")
    path.write_text(text.replace("eval_interval: 4", "eval_interval: 50"), encoding="utf-8")
    command = ["dvc", "repro", "--quiet", "train"]
    metrics = here.root / "metrics/train.json"
    dvc = subprocess.Popen(command, cwd=here.root, env=here.env, stdout=subprocess.DEVNULL)
    try:
        while not metrics.exists() or json.loads(metrics.read_text())["iter"] == 8:
            assert dvc.poll() is None
            time.sleep(0.02)
        head = here.git("rev-parse", "HEAD").strip()
        experiments = json.loads(here.dvc("exp", "show", "--rev", head, "--json"))
        plots = json.loads(
            here.dvc(
                "plots", "diff", head, "workspace", "-o", ".dvc/tmp/plots", "--split", "--json"
            )
        )
        assert dvc.poll() is None
    finally:  # the training alone: a warm one would not end with its DVC
        os.kill(training_process(here) or dvc.pid, signal.SIGKILL)
        dvc.wait()
    assert [row["rev"] for row in experiments] == ["workspace", head]
    for row, steps in zip(experiments, (range(50, 100_000), [8]), strict=True):
        found = {name: each["data"] for name, each in row["data"]["metrics"].items()}
        assert found["metrics/train.json"]["iter"] in steps
        assert "perplexity" in found["metrics/eval.json"]["val"]
        assert row["data"]["params"]["params.yaml"]["data"]["learning_rate"] == 8e-3
    assert plots.get("errors", []) == []
    assert {"Loss", "plots/position.csv", "plots/tokens.csv"} < plots["data"].keys()
    points = plots["data"]["Loss"][0]["anchor_definitions"]["<DVC_METRIC_DATA>"]
    assert {(point["rev"], point["field"]) for point in points if point["iter"] == "50"} == {
        ("workspace", "train_loss"),
        ("workspace", "val_loss"),
    }
    status = json.loads(here.dvc("data", "status", "--granular", "--unchanged", "--json"))
    assert "samples/sample_1.txt" in status["unchanged"]
