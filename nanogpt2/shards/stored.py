"""What one machine knows for another: dataclasses in files, their arrays as numpy writes them."""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nanogpt2.base import files
from nanogpt2.base.errors import DataError
from nanogpt2.cleaning.cleaner import Tally
from nanogpt2.prepare.encode import Encoded
from nanogpt2.prepare.layout import Layout, Section
from nanogpt2.prepare.work import Settled
from nanogpt2.scan.scan import Scan
from nanogpt2.scan.segments import Segment

KINDS = {kind.__name__: kind for kind in (Encoded, Layout, Scan, Section, Segment, Settled, Tally)}
PLAIN = "plain"  # the name of what is no array

Arrays = dict[str, npt.NDArray[Any]]


def store(path: Path, value: Any) -> None:
    """Write `value`, of the kinds above, whole or not at all."""
    arrays: Arrays = {}
    plain = json.dumps(_pack(value, arrays)).encode("ascii")
    with files.replacing(path) as file:
        np.savez(file, allow_pickle=False, **{PLAIN: np.frombuffer(plain, np.uint8)}, **arrays)


def load(path: Path) -> Any:
    """Return what `store` wrote; DataError where it is missing or damaged."""
    try:
        with np.load(path) as arrays:
            return _unpack(json.loads(arrays[PLAIN].tobytes()), arrays)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: missing or damaged; do its step again") from error


def _pack(value: Any, arrays: Arrays) -> Any:
    if isinstance(value, np.ndarray):
        arrays[f"a{len(arrays)}"] = value
        return {"array": f"a{len(arrays) - 1}"}
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {"kind": type(value).__name__} | {
            name: _pack(getattr(value, name), arrays) for name in names
        }
    if isinstance(value, Counter):
        return {"counter": dict(value)}
    if isinstance(value, Mapping):
        return {"map": {key: _pack(each, arrays) for key, each in value.items()}}
    if isinstance(value, list | tuple):
        return [_pack(each, arrays) for each in value]
    return {"path": str(value)} if isinstance(value, Path) else value


def _unpack(value: Any, arrays: Mapping[str, npt.NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return [_unpack(each, arrays) for each in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "path" in value:
        return Path(value["path"])
    if "counter" in value:
        return Counter(value["counter"])
    if "map" in value:
        return {key: _unpack(each, arrays) for key, each in value["map"].items()}
    kind = KINDS[value.pop("kind")]
    return kind(**{name: _unpack(each, arrays) for name, each in value.items()})
