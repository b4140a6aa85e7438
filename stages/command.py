"""What the stages share: a click command that ends with one line where the user can mend it."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

import click

from nanogpt2.errors import exit_with_one_line

RESTORE = "The last run's outputs come back with: dvc checkout && git restore metrics plots"


def stage_command(function: Callable[..., None]) -> click.Command:
    """Make `function` a command; under DVC, which removes outputs first, errors tell the way back.

    `validate` removes nothing, so it needs no such line.
    """
    if "DVC_STAGE" in os.environ and sys.platform == "linux":
        end_with_parent()
    removed = os.environ.get("DVC_STAGE", "validate") != "validate"
    guarded = exit_with_one_line(RESTORE if removed else "")(function)
    return click.command(context_settings={"show_default": True})(guarded)


def end_with_parent() -> None:
    """Ask the kernel for a SIGTERM when DVC is killed, which would leave this process running."""
    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


config_option = click.option(
    "--config", default="params.yaml", help="A YAML file, or a preset: nano, small, base."
)
