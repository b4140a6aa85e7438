"""The model of a run that is not over, from the newest state that is kept of it."""

from pathlib import Path

from nanogpt2.base.errors import CheckpointError, TrainingError
from nanogpt2.model.checkpoint import Checkpoint, build_model, load_tensors
from nanogpt2.train.resume import StateFiles
from nanogpt2.train.unfinished import list_runs


def find_run(root: str | Path, name: str = "") -> Path:
    """Return the folder of the unfinished run that `name` begins, or of the newest with a state.

    TrainingError where there is none.
    """
    runs = [run for run in list_runs(root) if run.step and run.name.startswith(name)]
    if not runs:
        listed = ", ".join(run.name for run in list_runs(root)) or "none"
        wanted = f"no unfinished run {name}".rstrip()
        raise TrainingError(f"{wanted} with a state under {root}; there are: {listed}")
    return Path(root, runs[0].name)


def load_unfinished(path: str | Path) -> Checkpoint:
    """Return the model of a state, or of the newest whole one in a run's folder, on the CPU.

    With an EMA it is that of the weights, as evaluations see it. CheckpointError where there is
    none that can be read.
    """
    path = Path(path)
    state = StateFiles(path).load()[0] if path.is_dir() else load_tensors(path)
    if state is None:
        raise CheckpointError(f"{path}: no whole state of a run")
    try:
        stepper, step = state["stepper"], int(state["record"]["step"])
        config, weights = stepper["config"], stepper["model"]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: not a state of this version's runs") from error
    model = build_model(path, config, weights)
    for parameter, mean in zip(model.parameters(), stepper["ema"], strict=False):
        parameter.data = mean
    return Checkpoint(model.eval(), None, {"iter": step})
