"""JSON files of other tools: what they hold, or one line that says what is allowed there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import CheckpointError, DataError


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; CheckpointError where it has none."""
    found = or_refuse(files.read_json, path)
    if not isinstance(found, dict):
        raise refused(path, "the file", found, "an object")
    return found


def or_refuse(read: Callable[[Path], Any], path: Path) -> Any:
    """Return what `read` makes of the file; CheckpointError where it cannot be read."""
    try:
        return read(path)
    except DataError as error:
        raise CheckpointError(str(error)) from error


def refused(path: Path, key: str, found: Any, allowed: str) -> CheckpointError:
    """Return the error that names the file, the key, the value found and what is allowed."""
    shown = json.dumps(found, ensure_ascii=False)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return CheckpointError(f"{path}: {key}: found {shown}; allowed: {allowed}")
