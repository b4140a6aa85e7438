"""The workflows of GitHub Actions: valid, without secrets, and no more than what runs here too."""

import re
import shutil
import subprocess
import tomllib
from typing import Any

import pytest
from imports import ROOT

from nanogpt2.config import yaml12

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def jobs(name: str) -> dict[str, Any]:
    """Return the jobs of a workflow."""
    found: dict[str, Any] = yaml12.read(ROOT / ".github/workflows" / name)["jobs"]
    return found


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="no actionlint on PATH")
def test_the_workflows_pass_actionlint() -> None:
    done = subprocess.run(
        ["actionlint", *map(str, WORKFLOWS)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck on PATH")
def test_the_scripts_pass_shellcheck() -> None:
    scripts = [str(ROOT / "ci/check.sh"), str(ROOT / ".ci/run")]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_no_workflow_can_write_or_needs_a_secret() -> None:
    assert {path.name for path in WORKFLOWS} == {"ci.yml", "experiment.yml"}
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        assert yaml12.read(path)["permissions"] == {"contents": "read"}
        assert text.count("permissions:") == 1
        assert not re.search(r"secrets|pull_request_target|github\.token", text)


def test_the_check_of_an_experiment_is_the_script_that_runs_anywhere() -> None:
    steps = jobs("experiment.yml")["check"]["steps"]
    commands = [step["run"].strip() for step in steps if "run" in step]
    assert commands[-1] == 'bash ci/check.sh "$BASE" report'
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[>=<]", each)[0] for each in project["dependencies"]}
    assert needed - {"torch"} | {"bokeh"} == {*commands[0].split("\\\n")[-1].split()}
