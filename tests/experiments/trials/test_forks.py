"""The server that forks DVC and stages: a process behaves as if Python had started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from imports import ROOT

from nanogpt2.experiments.trials.dvc import environment
from nanogpt2.experiments.trials.forks import Forks

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="Linux alone has it")

STAGE = """
import os, signal, sys, time
import code_of_the_trial
print(code_of_the_trial.NAME, sys.argv[1:], os.environ["GIVEN"], os.getcwd(), flush=True)
if sys.argv[1] == "wait":
    time.sleep(30)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Forks]:
    found = Forks(environment(), wanted=True, modules=())
    found.python  # noqa: B018 - waits
    yield found
    found.end()
    assert not found.place.exists()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/train.py").write_text(STAGE, encoding="utf-8")
    (tmp_path / "code_of_the_trial.py").write_text(f"NAME = {tmp_path.name!r}", encoding="utf-8")
    return tmp_path


def start(python: str, project: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "-m", "stages.train", *words],
        cwd=project,
        env={**os.environ, "GIVEN": "here"},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_fork_has_the_code_arguments_folder_and_environment_of_its_call(
    server: Forks, project: Path
) -> None:
    for python in (server.python, sys.executable):
        done = start(python, project, "3", "b c")
        line = f"{project.name} ['3', 'b c'] here {project}\n"
        assert (done.communicate()[0], done.returncode) == (line, 3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_fork_and_its_client(
    server: Forks, project: Path, number: signal.Signals
) -> None:
    process = start(server.python, project, "wait")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    assert process.wait() == -number
    assert process.stdout.read() == ""  # the fork is gone too, or this would take 30 seconds
    process.stdout.close()


def test_anything_else_and_everything_without_a_server_is_python_itself(
    server: Forks, project: Path
) -> None:
    told = [server.python, "-c", "import sys; print(sys.executable)"]
    shown = subprocess.run(told, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == sys.executable
    alone = Forks(environment(), wanted=True, modules=())
    assert alone.server is not None
    python = alone.python
    alone.server.kill()
    alone.server.wait()
    done = start(python, project, "4")
    assert (done.communicate()[0], done.returncode) == (f"{project.name} ['4'] here {project}\n", 4)
    alone.end()
    assert not alone.place.exists()


def test_a_server_ends_once_its_owner_is_gone() -> None:
    code = (
        "import os; from nanogpt2.experiments.trials.forks import Forks\n"
        "from nanogpt2.experiments.trials.dvc import *\n"
        "found = Forks(environment(), wanted=True, modules=()); found.python\n"
        "print(found.place, flush=True); os._exit(0)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    place = done.stdout.strip()
    until = time.monotonic() + 20
    while Path(place).exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(place).exists()
