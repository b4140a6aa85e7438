"""What the stages share: a click command that ends with one line where the user can mend it."""

import atexit
import gc
import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from nanogpt2.base.screen.screen import done as done
from nanogpt2.base.screen.screen import running, say
from nanogpt2.base.screen.state import OPTIONS
from nanogpt2.base.system.errors import exit_with_one_line

atexit.register(gc.freeze)  # looking for garbage in all of torch takes 0.2 s, in vain
RESTORE = "The last run's outputs come back with: dvc checkout && git restore metrics plots"


def stage_command(function: Callable[..., None]) -> click.Command:
    """Make `function` a command; under DVC, which removes outputs first, errors tell the way back.

    What changed while it ran is an error there too. `validate` removes nothing, and what it writes
    depends on nothing.
    """
    stage, name = os.environ.get("DVC_STAGE", ""), Path(function.__code__.co_filename).stem
    removed = stage not in ("", "validate")

    @wraps(function)
    @exit_with_one_line(RESTORE if removed else "")
    def guarded(*arguments: Any, **options: Any) -> None:
        if stage:
            from stages.shared.parent import run_apart  # psutil takes 30 ms to import

            run_apart(stage)
        with running(name, [variable for variable in OPTIONS if options.pop(variable)]):
            if not stage and "config" in options and "RANK" not in os.environ:
                show_left_out(options["config"])
            if removed:
                from stages.shared.inputs import Inputs

                click.get_current_context().obj = Inputs(stage)
            function(*arguments, **options)
            check_inputs()

    for variable, (flags, text) in reversed(OPTIONS.items()):
        click.option(*flags, variable, is_flag=True, help=text)(guarded)
    return click.command(context_settings={"show_default": True})(guarded)


def check_inputs() -> None:
    """Raise ConfigError where DVC would record other inputs of this stage than it began with."""
    if inputs := click.get_current_context().obj:
        inputs.check()


def checked(save: Callable[..., None]) -> Callable[..., None]:
    """Return `save`, which calls `check_inputs` first.

    A run that is not saved keeps its state, from which the same command goes on.
    """

    def save_if_unchanged(*arguments: Any) -> None:
        check_inputs()
        save(*arguments)

    return save_if_unchanged


def while_dvc_waits(write: Callable[[], None]) -> Callable[..., None] | None:
    """Return what calls `write` after each evaluation, so that editors show a run under way.

    None outside DVC, which has removed the last run's figures: by hand they stay until the end.
    """
    return (lambda _: write()) if os.environ.get("DVC_STAGE") else None


def show_left_out(config: str) -> None:
    """Say where `config`, a preset or a file, asks for something else than params.yaml unseen."""
    beside = Path("params.yaml")
    if Path(config) == beside:  # to read and check a file takes 0.1 s
        return
    from nanogpt2.config.config import describe_left_out

    if line := describe_left_out(config, beside=beside):
        say(line)


def log_beside(metrics: Path) -> Path:
    """Return the log of a run with these `metrics`: the pipeline's, or one beside other ones."""
    if metrics == Path("metrics/train.json"):
        return Path("logs/train.log")
    return metrics.with_name(f"{metrics.stem}-logs") / "train.log"


def state_folder() -> Path:
    """Return where states of runs are kept; experiments, run in copies, share the project's."""
    return Path(os.environ.get("DVC_ROOT", "."), ".resume")


config_option = click.option(
    "--config", default="params.yaml", help="A YAML file, or a preset: nano, small, base."
)
checkpoints_option = click.option(
    "--checkpoint",
    "checkpoints",
    type=Path,
    multiple=True,
    default=["checkpoints/best_model.pt"],
    help="Model file; several are an ensemble, whose probabilities are averaged.",
)
