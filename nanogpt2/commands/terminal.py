"""The terminal: what is typed ahead does not mix into a text, and appears at the next prompt."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def use_line_editor() -> None:
    """Let `input` edit lines and remember them, and show what was typed ahead, where it can."""
    with suppress(ImportError):  # Windows has an editor of its own
        import readline  # noqa: F401


@contextmanager
def without_echo() -> Iterator[None]:
    """Have a terminal not show what is typed meanwhile; where there is none nothing is done."""
    if sys.platform == "win32" or not sys.stdin.isatty():
        yield
        return
    import termios

    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    quiet = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
    termios.tcsetattr(handle, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
