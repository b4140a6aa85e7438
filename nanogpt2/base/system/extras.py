"""Libraries that only some users need: an extra of pyproject.toml brings each."""

from importlib import import_module
from typing import Any

from nanogpt2.base.system.errors import ExtraError


def import_extra(module: str, *, extra: str) -> Any:
    """Return the `module` that the extra `extra` brings; ExtraError where it is missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ExtraError(how_to_install(str(error.name), extra=extra)) from error


def how_to_install(name: str, *, extra: str) -> str:
    """Return a line that says that the library `name` is missing, and what brings it."""
    return (
        f"{name} is not installed: `pip install 'nanogpt2[{extra}]'` brings it, in a checkout"
        f" `pip install --constraint constraints.txt --editable '.[{extra}]'`"
    )
