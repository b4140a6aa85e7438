"""What the stages share: a click command that ends with one line where the user can mend it."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import click

from nanogpt2.base.errors import exit_with_one_line

RESTORE = "The last run's outputs come back with: dvc checkout && git restore metrics plots"


def stage_command(function: Callable[..., None]) -> click.Command:
    """Make `function` a command; under DVC, which removes outputs first, errors tell the way back.

    `validate` removes nothing, so it needs no such line.
    """
    if "DVC_STAGE" in os.environ:
        from stages.shared.parent import end_with_dvc  # psutil takes 30 ms to import

        threading.Thread(target=end_with_dvc, daemon=True).start()
    removed = os.environ.get("DVC_STAGE", "validate") != "validate"
    guarded = exit_with_one_line(RESTORE if removed else "")(function)
    return click.command(context_settings={"show_default": True})(guarded)


def state_folder() -> Path:
    """Return where states of runs are kept; experiments, run in copies, share the project's."""
    return Path(os.environ.get("DVC_ROOT", "."), ".resume")


config_option = click.option(
    "--config", default="params.yaml", help="A YAML file, or a preset: nano, small, base."
)
