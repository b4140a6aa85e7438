"""Errors that a user can mend, and the one place where they meet the user."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import NoReturn

from nanogpt2.base.system.output import (
    RED,
    YELLOW,
    is_of_output,
    let_output_go,
    paint,
    settle_streams,
)


class NanoGPT2Error(Exception):
    """A mistake in the input or the surroundings; its text says what to change."""


class ConfigError(NanoGPT2Error):
    """A configuration that is not valid; one line for each key that is wrong."""


class DataError(NanoGPT2Error):
    """Text, token files or outputs that cannot be read, used or written."""


class CheckpointError(NanoGPT2Error):
    """A checkpoint file that is not ours, damaged, or made for another model."""


class DeviceError(NanoGPT2Error):
    """A device that this machine does not have, or whose memory is too small."""


class ExtraError(NanoGPT2Error):
    """A library that is not installed, because only some users need it."""


class TrainingError(NanoGPT2Error):
    """A run that cannot go on: not finite, interrupted, or under way elsewhere."""


@cache
def warn_once(text: str) -> None:
    """Print a warning to stderr, the same one once in a process."""
    with suppress(OSError, ValueError):
        print(f"{paint('warning:', YELLOW, sys.stderr)} {text}", file=sys.stderr)


@contextmanager
def exit_with_one_line(hint: str = "") -> Iterator[None]:
    """Print a `NanoGPT2Error` to stderr, followed by `hint`, and exit with status 1.

    Also a decorator. Within it any text can be written to the standard streams. Any other
    exception is a bug and keeps its traceback.
    """
    settle_streams()
    try:
        yield
    except NanoGPT2Error as error:
        _exit(*str(error).splitlines(), hint)
    except OSError as error:
        if not is_of_output(error):
            raise
        _exit(f"the output cannot be written: {error.strerror}; free some space", hint)
    finally:
        let_output_go()


def _exit(*lines: str) -> NoReturn:
    with suppress(OSError, ValueError):  # nobody may be there to read it
        for line in filter(None, lines):
            print(paint(line, RED, sys.stderr), file=sys.stderr)
    sys.exit(1)
