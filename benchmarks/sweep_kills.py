"""Does a sweep that is killed finish? 30 trials, two at a time, with ten kills; then it is counted.

    python benchmarks/sweep_kills.py [--trials 30] [--seed 0] [--warm]

A tiny project is swept; at five random moments the sweep is killed (SIGKILL) and started again, and
at five others a process of a trial: DVC, the shell, or a stage. In the end `dvc exp show` must list
each trial once, and no log may tell of two trainings that came to their end.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import warm
from workspace import SMALL_RUN, Workspace

ENDED = "best val loss"  # a line that training prints when it is through


def main() -> None:
    """Sweep, kill, and say what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--kills", type=int, default=5, help="of the sweep, and of a trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warm", action="store_true", help="fork what tests fork; quicker")
    options = parser.parse_args()
    draw = random.Random(options.seed)
    changes = {**SMALL_RUN, "max_iters": 200, "eval_interval": 20, "checkpoint_interval": 20}
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder, "project"), changes)
        if not options.warm:
            workspace.env |= {"PATH": workspace.cold_path(), "NANOGPT2_FORKS": "1"}
        status = sweep(workspace, options.trials, options.kills, draw)
        report(workspace, options.trials, status)


def sweep(workspace: Workspace, trials: int, kills: int, draw: random.Random) -> int:
    """Run the sweep to its end through all kills, which come in a random order."""
    rates = ",".join(f"{1e-3 * (1 + n / 10):.4g}" for n in range(trials))
    command = ["python", "-m", "nanogpt2", "sweep", "--jobs", "2", "-S", f"learning_rate={rates}"]
    order = ["sweep", "trial"] * kills
    draw.shuffle(order)
    process = start(workspace, command)
    for at, whom in enumerate(order):
        done = finished(workspace)
        awaited = (at + draw.random()) * trials / (len(order) + 1)
        while process.poll() is None and finished(workspace) < max(done, awaited - 1):
            time.sleep(0.2)
        time.sleep(draw.uniform(0, 8))
        if process.poll() is not None:
            break
        done = finished(workspace)
        print(f"{done} of {trials} finished: kill -9 of {kill(workspace, whom, process, draw)}")
        if whom == "sweep":
            process.wait()
            process = start(workspace, command)
    return process.wait()


def start(workspace: Workspace, command: list[str]) -> subprocess.Popen[bytes]:
    """Start the sweep."""
    with (workspace.root / "logs.txt").open("ab") as log:
        return subprocess.Popen(
            command, cwd=workspace.root, env=workspace.env, stdout=log, stderr=log
        )


def finished(workspace: Workspace) -> int:
    """Return how many trials have ended well."""
    notes = (workspace.root / "logs/sweeps").glob("*.json")
    return sum(json.loads(note.read_text())["state"] == "finished" for note in notes)


def kill(
    workspace: Workspace, whom: str, process: subprocess.Popen[bytes], draw: random.Random
) -> str:
    """Kill the sweep, or one of the processes that work in its copies; return which it was."""
    if whom == "sweep":
        process.kill()
        return "the sweep"
    copies, found = workspace.root / ".dvc/tmp/sweeps", []
    for each in psutil.process_iter():
        try:
            if Path(each.cwd()).is_relative_to(copies):
                found.append((each, " ".join(each.cmdline()[:4])))
        except psutil.Error:
            continue
    if not found:  # between two trials
        time.sleep(0.2)
        return kill(workspace, whom, process, draw) if process.poll() is None else "nothing"
    chosen, words = draw.choice(found)
    chosen.send_signal(signal.SIGKILL)
    return f"a trial: {words}"


def report(workspace: Workspace, trials: int, status: int) -> None:
    """Say how many experiments there are, and how often each training came to its end."""
    shown = json.loads(workspace.dvc("exp", "show", "--json"))
    names = [each["name"] for revision in shown for each in revision.get("experiments") or []]
    logs = sorted((workspace.root / "logs/sweeps").glob("trial-*.log"))
    ends = [log.read_text(encoding="utf-8").count(ENDED) for log in logs]
    print((workspace.root / "logs.txt").read_text(encoding="utf-8").splitlines()[-1])
    print(f"exit status {status}; {finished(workspace)} of {trials} finished")
    print(f"dvc exp show: {len(names)} experiments, {len(set(names))} names")
    print(f"trainings that came to their end: {sum(ends)}, at most {max(ends)} of one trial")
    print(
        f"git status: {workspace.git('status', '--porcelain', '--untracked-files=no') or 'clean'}"
    )
    if not (status == 0 and len(names) == len(set(names)) == trials and max(ends) == 1):
        sys.exit("not as it should be")


if __name__ == "__main__":
    warm.executable()
    main()
