"""Errors that a user can mend, and the one place where they meet the user."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache


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


class TrainingError(NanoGPT2Error):
    """A run that cannot go on: not finite, interrupted, or under way elsewhere."""


@cache
def warn_once(text: str) -> None:
    """Print a warning to stderr, the same one once in a process."""
    with suppress(OSError, ValueError):
        print(f"warning: {text}", file=sys.stderr)


@contextmanager
def exit_with_one_line(hint: str = "") -> Iterator[None]:
    """Print a `NanoGPT2Error` to stderr, followed by `hint`, and exit with status 1.

    Also a decorator. Any other exception is a bug and keeps its traceback.
    """
    try:
        yield
    except NanoGPT2Error as error:
        with suppress(OSError, ValueError):  # nobody may be there to read it
            for line in [*str(error).splitlines(), hint]:
                if line:
                    print(line, file=sys.stderr)
        sys.exit(1)
    finally:
        _let_output_go()


def _let_output_go() -> None:
    """Write out what was printed; where nobody reads it any more, that changes no exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):  # a stream of a test's own has no number
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
