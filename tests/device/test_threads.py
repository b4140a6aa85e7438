"""Idle threads sleep while other programs want the cores; nothing else changes."""

import os
import subprocess
import sys

import pytest
import warm

from nanogpt2.device.threads import CALM_LOOKS, SETTINGS, _loaded_libraries, follow_load

MEASURE = """
import os, time, torch
from nanogpt2.device import threads

sleepers = threads.Sleepers(threads._loaded_libraries())
x = torch.ones(1_000_000)

def idle_seconds():
    x.add_(1)
    before, start = time.process_time(), time.perf_counter()
    for _ in range(60):
        x[:70_000].add_(1)  # two threads share it
        time.sleep(0.004)   # and then have nothing to do
    return time.process_time() - before

def sum_of_many():
    return torch.ones(10_000_001).mul_(0.1).sum().item()

found = []
for wanted in (False, True, False):
    sleepers.set(wanted)
    found.append((idle_seconds(), sum_of_many(), torch.get_num_threads()))
print(found, flush=True)
os._exit(0)  # Python takes half a second to take torch apart
"""


def run(code: str, python: str, **settings: str) -> str:
    env = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    env |= {"OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path), **settings}
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", autouse=True)
def _gnu_openmp() -> None:
    if not _loaded_libraries() or (os.cpu_count() or 1) < 2:
        pytest.skip("needs GNU's OpenMP and two processors")


def test_idle_threads_spin_or_sleep_as_asked_and_compute_the_same() -> None:
    spinning, sleeping, again = eval(run(MEASURE, sys.executable))
    assert sleeping[0] < spinning[0] / 2
    assert sleeping[0] < again[0] / 2
    assert spinning[1:] == sleeping[1:] == again[1:]  # the sum, and the number of threads


COUNT = """
import os, threading, torch
from nanogpt2.device import threads
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
threads.share_cores()
print(threading.active_count())
"""


def test_a_thread_of_its_own_follows_the_load() -> None:
    assert run(COUNT, warm.executable()) == "2\n"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_users_own_setting_wins(name: str) -> None:
    setting = {name: "PASSIVE" if name == "OMP_WAIT_POLICY" else "10"}
    assert run(COUNT, warm.executable(), **setting) == "1\n"


def test_one_thread_has_nothing_to_share() -> None:
    assert run(COUNT, warm.executable(), OMP_NUM_THREADS="1") == "1\n"


def test_threads_sleep_at_once_when_cores_are_missing_and_spin_again_after_a_calm_while() -> None:
    hour = 3600 * 10**9  # far more than can pass between two looks
    readings = iter([0, hour, 2 * hour] + [2 * hour] * CALM_LOOKS)
    decisions: list[bool] = []
    with pytest.raises(StopIteration):
        follow_load(lambda: {"thread": next(readings)}, decisions.append, lambda seconds: None)
    assert decisions == [True, True] + [True] * (CALM_LOOKS - 1) + [False]
