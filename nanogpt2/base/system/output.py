"""The standard streams: any text can be written to them, and any bytes be read."""

import codecs
import errno
import io
import os
import sys
from contextlib import suppress
from typing import TextIO

POLICIES = ("surrogateescape", "replace", "backslashreplace")  # of stdin, stdout and stderr
RED, GREEN, YELLOW = 31, 32, 33
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def settle_streams() -> None:
    """Let the standard streams take any text: UTF-8 in files and pipes, whatever the system's own.

    A terminal, and who sets PYTHONIOENCODING, keep their encoding, unless it is ASCII; what it
    lacks is replaced.
    Bytes that are not UTF-8 are read as half surrogates, which every tokenizer refuses.
    """
    chosen = os.environ.get("PYTHONIOENCODING", "").partition(":")[0]
    for stream, errors in zip((sys.stdin, sys.stdout, sys.stderr), POLICIES, strict=True):
        if isinstance(stream, io.TextIOWrapper):
            with suppress(OSError, ValueError):  # what was read from or closed stays as it is
                kept = (chosen or stream.isatty()) and not is_ascii(stream.encoding)
                stream.reconfigure(encoding=None if kept else "utf-8", errors=errors)


def is_ascii(encoding: str) -> bool:
    """Return whether an encoding is ASCII, by whatever name: what no terminal of today is in."""
    return codecs.lookup(encoding).name == "ascii"


def let_output_go() -> None:
    """Write out what was printed; where nobody reads it any more, that changes no exit status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # closed when the process began
                stream.flush()
        except (OSError, ValueError):
            with suppress(OSError, ValueError):  # a stream of a test's own has no number
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def is_of_output(error: OSError) -> bool:
    """Return whether it was the standard output that had no room.

    Errors of files have a name, and are said where they are written.
    """
    return error.filename is None and error.errno in NO_ROOM


def is_on(name: str) -> bool:
    """Return whether an environment variable is set, and not to 0, no, false or nothing."""
    return os.environ.get(name, "").lower() not in ("", "0", "no", "false")


def is_animated(stream: TextIO | None) -> bool:
    """Return whether a line may move on `stream`: it is a terminal that people watch, not CI."""
    return _is_terminal(stream) and not is_on("CI")


def paint(text: str, colour: int, stream: TextIO | None) -> str:
    """Return `text` in a colour where `stream` shows colours: on a terminal, if nobody minds.

    NO_COLOR and TERM=dumb mind; FORCE_COLOR asks for colours anywhere else. https://no-color.org
    """
    if os.environ.get("NO_COLOR") or not (is_on("FORCE_COLOR") or _is_terminal(stream)):
        return text
    return f"\x1b[{colour}m{text}\x1b[0m"


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # it was closed
        return False


def takes(stream: TextIO, text: str) -> bool:
    """Return whether the encoding of `stream` has all characters of `text`."""
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
