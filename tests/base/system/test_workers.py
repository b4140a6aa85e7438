"""Worker processes: the results in order, and nobody left behind."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from processes import going_on

from nanogpt2.base.system.workers import is_alone

ROOT = Path(__file__).parents[3]
SCRIPT = """
import os, sys, threading, time
from nanogpt2.base.system.workers import Workers, is_alone

def square(number):
    return number * number, os.getpid(), "imported" in sys.modules

if __name__ == "__main__":
    if sys.argv[1:] == ["threads"]:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    sys.modules["imported"] = sys  # what a forked process has too
    with Workers(2) as workers:
        found = list(workers.each(square, range(20)))
        assert [each[0] for each in found] == [number**2 for number in range(20)]
        assert os.getpid() not in {each[1] for each in found}
        print(found[0][2], *{each[1] for each in found}, flush=True)
        if sys.argv[1:] == ["wait"]:
            time.sleep(60)
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process is forked")
@pytest.mark.parametrize("how", ["alone", "threads"])
def test_a_process_of_one_thread_forks_its_workers(how: str, script: Path) -> None:
    """What is imported need not be imported again; with threads, whose locks may be held, it is."""
    command = [sys.executable, "-W", "error", str(script), how]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(how == "alone"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no process is forked")
def test_workers_end_with_a_parent_that_is_killed(script: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdout
        _, *numbers = process.stdout.readline().split()
        workers = [psutil.Process(int(number)) for number in numbers]
        process.kill()
    assert not going_on(workers, within=5)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody knows")
def test_a_thread_is_seen() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert not is_alone()
    finally:
        done.set()
        thread.join()


ASIDE = """
import os, signal, sys
from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.workers import aside

MAIN = os.getpid()

def work(what):
    if what == "fail":
        raise DataError("give more text")
    if what == "killed" and os.getpid() != MAIN:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()

begun = aside(work, sys.argv[1])
try:
    print("here" if begun() == MAIN else "aside")
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs fork")
@pytest.mark.parametrize(
    ("what", "said"), [("well", "aside"), ("fail", "give more text"), ("killed", "here")]
)
def test_a_call_aside_gives_its_result_or_its_error_and_is_made_here_where_it_was_killed(
    tmp_path: Path, what: str, said: str
) -> None:
    script = tmp_path / "aside.py"
    script.write_text(ASIDE, encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    told = subprocess.run([sys.executable, script, what], capture_output=True, text=True, env=env)
    if len(os.sched_getaffinity(0)) == 1 and what != "fail":
        said = "here"
    assert (told.stdout.strip(), told.stderr) == (said, "")
