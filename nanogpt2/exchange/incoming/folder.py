"""A folder in Hugging Face's form: config.json, weights as safetensors in one file or shards.

Nothing in it is run, and nothing outside of it is named by its files.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nanogpt2.base.system.errors import CheckpointError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.base.system.foreign import read_object
from nanogpt2.base.system.words import name_some

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
POINTER = b"version https://git-lfs"


def read_config(folder: Path) -> dict[str, Any]:
    """Return the folder's config.json; CheckpointError where it has none."""
    return read_object(folder / "config.json")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of all weight files, as they are stored; CheckpointError where one is bad.

    The headers of all files are looked at before a tensor of one is read.
    """
    shards = find_shards(folder)
    library = import_extra("safetensors", extra="hf")
    opened = {name: _open(folder / name, library) for name in shards}
    for name, expected in shards.items():
        found = set(opened[name].keys())
        if expected is not None and found != expected:
            wrong = name_some(sorted(found ^ expected), 3)
            raise CheckpointError(f"{folder / name}: not the weights that {INDEX} tells: {wrong}")
    return {
        name: file.get_tensor(name)
        for file in opened.values()
        for name in file.keys()  # noqa: SIM118
    }


def find_shards(folder: Path) -> dict[str, set[str] | None]:
    """Return the names of the weight files, and those of the tensors in each, where it is told."""
    if (folder / WEIGHTS).exists():
        return {WEIGHTS: None}
    if not (folder / INDEX).exists():
        raise CheckpointError(f"{folder}: {_describe_lack(folder)}")
    index = read_object(folder / INDEX).get("weight_map")
    if not isinstance(index, Mapping) or not index:
        raise CheckpointError(f"{folder / INDEX}: damaged: it tells no weight_map")
    shards: dict[str, set[str]] = {}
    for tensor, name in sorted(index.items()):
        if not isinstance(name, str) or Path(name).name != name or "\\" in name:
            raise CheckpointError(f"{folder / INDEX}: found {name!r}; allowed: files of its folder")
        if not name.endswith(".safetensors"):
            raise CheckpointError(f"{folder / INDEX}: found {name}; allowed: safetensors files")
        if not (folder / name).exists():
            raise CheckpointError(f"{folder / name}: no such file, and {INDEX} names it")
        shards.setdefault(name, set()).add(tensor)
    return dict(shards)


def _describe_lack(folder: Path) -> str:
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if pickled:
        return (
            f"no {WEIGHTS}; {pickled[0]} is a pickle, which can run code when it is read: save the"
            " model as safetensors, save_pretrained(folder, safe_serialization=True)"
        )
    return f"no {WEIGHTS} and no {INDEX}"


def _open(path: Path, library: Any) -> Any:
    """Return an open safetensors file; CheckpointError where its header does not fit it."""
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise CheckpointError(f"{path}: a pointer of git-lfs: `git lfs pull` brings the file")
    try:
        return library.safe_open(path, framework="pt")
    except (library.SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged, or no safetensors file: {error}") from error
