"""What a sweep costs beside its training, and beside DVC's queue: the same trials, two at a time.

    python benchmarks/sweep.py [--trials 20] [--queued 20] [--steps 800]

A tiny project trains for about two seconds a trial. Training is the time that the last line of each
training run tells, as it ran side by side with another one.
"""

import argparse
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from workspace import SMALL_RUN, Workspace

LAST = re.compile(r"iter (\d+): .* \(time: ([\d.]+)s\)")
JOBS = 2
WAIT = 600.0  # seconds for the queue, which can stop half-way


def main() -> None:
    """Run both sides and print the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--queued", type=int, default=20, help="of them, in DVC's queue; 0: none")
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--sides", type=int, default=2, help="1: without NANOGPT2_FORKS=0")
    options = parser.parse_args()
    steps = options.steps
    changes = {**SMALL_RUN, "max_iters": steps, "eval_interval": steps}
    rates = [f"{1e-3 * (1 + n / 100):.5g}" for n in range(options.trials)]
    with tempfile.TemporaryDirectory() as folder:
        for name, forks in [("sweep", "1"), ("sweep, NANOGPT2_FORKS=0", "0")][: options.sides]:
            project = prepared(Path(folder, f"forks-{forks}", "project"), changes)
            project.env["NANOGPT2_FORKS"] = forks
            began, used = time.perf_counter(), cpu_seconds()
            setting = f"learning_rate={','.join(rates)}"
            project.run("python", "-m", "nanogpt2", "sweep", "--jobs", str(JOBS), "-S", setting)
            wall = time.perf_counter() - began
            tell(name, wall, trained(project, steps), options.trials, cpu_seconds() - used)
        if options.queued:
            project = prepared(Path(folder, "queue", "project"), changes)
            began = time.perf_counter()
            done = queue(project, rates[: options.queued])
            tell("dvc queue", time.perf_counter() - began, [], done, 0.0)


def prepared(root: Path, changes: dict[str, object]) -> Workspace:
    """Return a project whose text is prepared, and whose processes start as people's do."""
    project = Workspace(root, changes)
    project.env["PATH"] = Workspace.cold_path()
    project.dvc("repro", "prepare")
    project.commit("prepared")
    return project


def trained(project: Workspace, steps: int) -> list[float]:
    """Return the seconds of each training."""
    found = []
    for log in (project.root / "logs/sweeps").glob("*.log"):
        times = {int(step): float(t) for step, t in LAST.findall(log.read_text(encoding="utf-8"))}
        found.append(times[steps])
    return found


def queue(project: Workspace, rates: list[str]) -> int:
    """Run the trials in DVC's queue; return how many have ended well, within WAIT."""
    for rate in rates:
        project.dvc("exp", "run", "--queue", "--name", f"q-{rate}", "-S", f"learning_rate={rate}",
                    "evaluate")  # fmt: skip
    project.dvc("queue", "start", "--jobs", str(JOBS))
    until = time.perf_counter() + WAIT
    done = 0
    while done < len(rates) and time.perf_counter() < until:
        time.sleep(2)
        done = project.dvc("queue", "status").count("Success")
    project.run("dvc", "queue", "stop", "--kill", check=False)
    return done


def cpu_seconds() -> float:
    """Return the processor time of all that was started here and has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tell(name: str, wall: float, training: list[float], count: int, cpu: float) -> None:
    """Print what one side took."""
    line = f"{name}: {count} trials in {wall:.1f} s, {wall / max(count, 1):.2f} s each"
    if cpu:  # the queue's workers are nobody's children
        line += f", {cpu / count:.2f} s of processors"
    if training:
        alone, side = sum(training), sum(training) / JOBS
        line += (
            f"; training {alone:.1f} s one after another, {side:.1f} s {JOBS} at a time:"
            f" {wall / alone:.2f} and {wall / side:.2f} times it"
        )
    print(line, flush=True)


if __name__ == "__main__":
    try:
        main()
    except subprocess.TimeoutExpired as error:
        sys.exit(str(error))
