"""What one process knows for another: dataclasses in files, their arrays as numpy writes them."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError

PLAIN = "plain"  # the name of what is no array

Arrays = dict[str, npt.NDArray[Any]]


def store(path: Path, value: Any) -> None:
    """Write `value`, made of dataclasses, arrays and plain data, whole or not at all."""
    arrays: Arrays = {}
    plain = json.dumps(_pack(value, arrays)).encode("ascii")
    with files.replacing(path) as file:
        np.savez(file, allow_pickle=False, **{PLAIN: np.frombuffer(plain, np.uint8)}, **arrays)


def load(path: Path, kinds: Iterable[type]) -> Any:
    """Return what `store` wrote, with dataclasses of these `kinds`.

    DataError where it is missing or damaged.
    """
    known = {kind.__name__: kind for kind in kinds}
    try:
        with np.load(path) as arrays:
            return _unpack(json.loads(arrays[PLAIN].tobytes()), arrays, known)
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


def _unpack(value: Any, arrays: Mapping[str, npt.NDArray[Any]], kinds: Mapping[str, type]) -> Any:
    if isinstance(value, list):
        return [_unpack(each, arrays, kinds) for each in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "path" in value:
        return Path(value["path"])
    if "counter" in value:
        return Counter(value["counter"])
    if "map" in value:
        return {key: _unpack(each, arrays, kinds) for key, each in value["map"].items()}
    kind = kinds[value.pop("kind")]
    return kind(**{name: _unpack(each, arrays, kinds) for name, each in value.items()})
