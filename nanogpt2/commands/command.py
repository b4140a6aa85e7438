"""What makes a function a command of `python -m nanogpt2`: errors in a line, and the screen."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from nanogpt2.base.screen.screen import running
from nanogpt2.base.screen.state import OPTIONS
from nanogpt2.base.system.errors import exit_with_one_line


def shown(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command --quiet, --verbose and --no-color, its summary, and errors of one line.

    It stands between click's decorators and the function. A group shows nothing where it was only
    on the way to a command of its own.
    """

    @wraps(function)
    @exit_with_one_line()
    def guarded(*arguments: Any, **options: Any) -> None:
        asked = [variable for variable in OPTIONS if options.pop(variable)]
        context = click.get_current_context()
        if context.invoked_subcommand is not None:
            function(*arguments, **options)
            return
        names = context.command_path.removeprefix(context.find_root().command_path).split()
        with running(" ".join(names) or str(context.info_name), asked):
            function(*arguments, **options)

    return screen_options(guarded)


def screen_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options of the screen; their values come by the names of variables."""
    for variable, (flags, help_) in reversed(OPTIONS.items()):
        command = click.option(*flags, variable, is_flag=True, help=help_)(command)
    return command
