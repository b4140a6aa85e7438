"""The line that moves at the bottom of a terminal, and streams that take it away before they write.

It needs no escape codes: it is written over, and wiped with spaces.
"""

import shutil
import threading
import time
from contextlib import suppress
from typing import Any, TextIO


class MovingLine:
    """One line on the terminal `stream`; where that is no terminal, `animated` is false."""

    def __init__(self, stream: TextIO, *, animated: bool) -> None:
        self.stream, self.animated = stream, animated
        self.lock = threading.RLock()
        self.shown = ""
        self.drawn = 0.0  # when
        self.written = time.monotonic()  # when something else was
        self.between_lines = True  # nothing that is written may go on in the middle of a line

    @property
    def width(self) -> int:
        """Columns that may be used: the last one would begin a new line."""
        return shutil.get_terminal_size().columns - 1

    def draw(self, text: str) -> None:
        """Show `text` in the place of what is there."""
        with self.lock, suppress(OSError, ValueError):
            text = text[: self.width]
            if self.animated and self.between_lines and text != self.shown:
                self.stream.write(f"\r{text:<{len(self.shown)}}")
                self.stream.flush()
                self.shown, self.drawn = text, time.monotonic()

    def clear(self) -> None:
        """Take the line away."""
        with self.lock, suppress(OSError, ValueError):
            if self.shown:
                self.stream.write(f"\r{'':{len(self.shown)}}\r")
                self.stream.flush()
                self.shown = ""


class Watched:
    """A standard stream, before whose text the moving line goes."""

    def __init__(self, stream: TextIO, line: MovingLine) -> None:
        self.stream, self.line = stream, line

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write `text`."""
        with self.line.lock:
            self.line.clear()
            self.line.written = time.monotonic()
            if text:
                self.line.between_lines = text.endswith("\n")
            return self.stream.write(text)
