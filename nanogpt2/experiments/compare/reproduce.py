"""The way back to a run: its commit, the commands that bring it, and the hashes to compare."""

import shlex

from nanogpt2.experiments.compare.runs import COPIES, HASHED, Run


def list_commands(run: Run) -> list[str]:
    """Return the commands that bring `run` back in a clean workspace; none where git lacks it."""
    if run.kind == "experiment" and run.base and run.commit:
        twice = run.name.endswith(f"({run.commit[:7]})")
        name = run.commit if twice else shlex.quote(run.name)
        return [f"git checkout {run.base}", f"dvc exp apply {name}", "dvc repro"]
    if run.commit:
        return [f"git checkout {run.commit}", "dvc repro"]
    return []


def list_hashes(run: Run) -> list[tuple[str, str]]:
    """Return what DVC keeps of `run`, in words, and its MD5."""
    names = {**HASHED, COPIES: "copied stretches"}
    return [(f"{names[path]} ({path})", md5) for path, md5 in run.hashes.items() if md5 != "None"]


def describe_lack(run: Run) -> str:
    """Return why there are no commands."""
    if run.kind == "running":
        return "It is being trained: DVC keeps it once it has ended."
    return "It is not committed: git add --all && git commit keeps it."


def how_to_fetch(run: Run) -> str:
    """Return what brings an output of `run` that DVC's cache here lacks."""
    if run.kind == "experiment":
        return f"dvc exp pull origin {shlex.quote(run.name)}, from where it was pushed to"
    return "dvc fetch --all-commits, from the remote of DVC, or dvc repro"
