"""dvc.lock beside what is there: every file, folder, parameter and command that it records.

DVC 3 names a file by its MD5, and a folder by the MD5 of the list of its files.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from nanogpt2.base.system import files
from nanogpt2.base.system.repository import changed_files
from nanogpt2.base.system.words import name_some
from nanogpt2.config import yaml12

FITS, DIFFERS, MISSING = "fits", "DIFFERS", "missing"
LOCK, PLAN, PARAMETERS = "dvc.lock", "dvc.yaml", "params.yaml"
OUTPUTS = ("outs", "metrics", "plots")
SHOWN = 5  # names in a line


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: whether it fits, and what was found."""

    verdict: str
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.verdict:8}{self.name}: {self.what}"


def judge(name: str, wrong: Iterable[str], *, fits: str) -> Finding:
    """Return that `name` differs in what is `wrong`, or that it `fits`."""
    wrong = sorted(set(wrong))
    return Finding(DIFFERS if wrong else FITS, name, name_some(wrong, SHOWN) if wrong else fits)


def compare_record() -> list[Finding]:
    """Return what of dvc.lock is as in dvc.yaml, params.yaml and the files; one for each thing.

    Raises ConfigError where one of the three cannot be read.
    """
    lock, plan, values = map(yaml12.read, (LOCK, PLAN, PARAMETERS))
    recorded, planned = stages_of(lock), stages_of(plan)
    others = [*other_stages(recorded, planned, values), *other_links(recorded)]
    wrong = [*other_form(lock), *(what for _, what in others)]
    return [
        judge(LOCK, wrong, fits="records the stages of dvc.yaml"),
        judge(
            PARAMETERS,
            (
                f"{key} is not as in the run of {stage}"
                for stage, key in other_parameters(recorded, values)
            ),
            fits="has the values of the recorded run",
        ),
        *_compare_files(recorded, ways_back(planned, values)),
    ]


def recorded_commands() -> dict[str, str]:
    """Return the command of each stage as dvc.lock has it, in the order of dvc.yaml."""
    recorded = stages_of(yaml12.read(LOCK))
    return {
        name: str(recorded[name].get("cmd"))
        for name in stages_of(yaml12.read(PLAN))
        if name in recorded
    }


def recorded_outputs() -> dict[str, dict[str, Any]]:
    """Return the entries of all outputs in dvc.lock, by their paths."""
    stages = stages_of(yaml12.read(LOCK)).values()
    return {str(entry["path"]): entry for stage in stages for entry in entries_of(stage, "outs")}


def recorded_inputs() -> set[str]:
    """Return the paths of all that a stage in dvc.lock read and no stage wrote."""
    stages = stages_of(yaml12.read(LOCK)).values()
    read = {str(entry["path"]) for stage in stages for entry in entries_of(stage, "deps")}
    return read - recorded_outputs().keys()


def stages_of(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    stages = document.get("stages")
    found = stages.items() if isinstance(stages, dict) else ()
    return {name: stage for name, stage in found if isinstance(stage, dict)}


def entries_of(stage: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    entries = stage.get(kind)
    found = entries if isinstance(entries, list) else []
    return [entry for entry in found if isinstance(entry, dict) and "path" in entry]


def parameters_of(stage: Mapping[str, Any]) -> dict[str, Any]:
    recorded = stage.get("params")
    values = recorded.get(PARAMETERS) if isinstance(recorded, dict) else None
    return values if isinstance(values, dict) else {}


# --- dvc.lock beside dvc.yaml ---


def other_form(lock: Mapping[str, Any]) -> list[str]:
    """Return that dvc.lock is of another version of DVC, where it is."""
    form = {key: lock[key] for key in lock if key != "stages"}
    return [] if form == {"schema": "2.0"} else ["its form is not that of DVC 3"]


def other_stages(
    recorded: Mapping[str, Any], planned: Mapping[str, Any], values: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield (stage, what of its record is not as dvc.yaml has it)."""
    many = {name for name, stage in planned.items() if {"foreach", "matrix"} & stage.keys()}
    for name in planned.keys() - recorded.keys() - many:
        yield name, f"the stage {name} is not recorded"
    for name in recorded.keys() - planned.keys():
        if name.partition("@")[0] not in many:  # of which each has a record
            yield name, f"the stage {name} is not in {PLAN}"
    for name in planned.keys() & recorded.keys():
        stage, entry = planned[name], recorded[name]
        outputs = [path for kind in OUTPUTS for path in listed(stage, kind, values)]
        pairs = {
            "cmd": (_resolve(stage.get("cmd"), values), entry.get("cmd")),
            "deps": (sorted(listed(stage, "deps", values)), _paths(entry, "deps")),
            "outs": (sorted(outputs), _paths(entry, "outs")),
            "params": (sorted(parameters_read(stage)), sorted(parameters_of(entry))),
        }
        for kind, (wanted, found) in pairs.items():
            if wanted != found:
                those = "is not that" if kind == "cmd" else "are not those"
                yield name, f"{kind} of {name} {those} of {PLAN}"
        if extra := entry.keys() - {"cmd", "deps", "outs", "params"}:
            yield name, f"{name} has {name_some(sorted(extra), SHOWN)}"


def other_links(recorded: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (stage, what it read that is not what another stage, or `dvc add`, wrote).

    Each file has one hash in all of the record, whether it is here or not.
    """
    written = {
        str(entry["path"]): (f"{name} wrote", entry)
        for name, stage in recorded.items()
        for entry in entries_of(stage, "outs")
    }
    for name, stage in recorded.items():
        for entry in entries_of(stage, "deps"):
            path = str(entry["path"])
            by, other = written.get(path) or (f"{path}.dvc names", added(path))
            if other is not None and other.get("md5") != entry.get("md5"):
                yield name, f"{name} read another {path} than {by}"


def other_parameters(
    recorded: Mapping[str, Any], values: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield (stage, parameter) for each that has another value in params.yaml than recorded."""
    for name, stage in recorded.items():
        for key, value in parameters_of(stage).items():
            if look_up(values, key) != value:
                yield name, key


def look_up(values: Any, key: str) -> Any:
    """Return the value of `key`, such as `sample.seed`, None where there is none."""
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def added(path: str) -> dict[str, Any] | None:
    """Return what `dvc add` has written of `path` into its .dvc file, None where there is none."""
    pointer = f"{path}.dvc"
    if not files.exists(pointer):
        return None
    return next(iter(entries_of(yaml12.read(pointer), "outs")), None)


def parameters_read(stage: Mapping[str, Any]) -> list[str]:
    """Return the keys of params.yaml that a stage of dvc.yaml lists."""
    return [key for key in stage.get("params", []) if isinstance(key, str)]


def listed(stage: Mapping[str, Any], kind: str, values: Mapping[str, Any]) -> list[str]:
    """Return the names in a list of dvc.yaml; `${a.b}` is a value of params.yaml."""
    names = [next(iter(item)) if isinstance(item, dict) else item for item in stage.get(kind, [])]
    resolved = (_resolve(name, values) for name in names)
    return [name for name in resolved if name != "None"]


def _resolve(text: object, values: Mapping[str, Any]) -> str:
    return re.sub(r"\$\{([\w.]+)\}", lambda match: str(look_up(values, match[1])), str(text))


def _paths(stage: Mapping[str, Any], kind: str) -> list[str]:
    return sorted(str(entry["path"]) for entry in entries_of(stage, kind))


# --- dvc.lock beside the files ---


def _compare_files(recorded: Mapping[str, Any], ways: Mapping[str, str]) -> Iterator[Finding]:
    by_path: dict[str, dict[str, Any]] = defaultdict(dict)
    for stage, content in recorded.items():
        for kind in ("outs", "deps"):
            for entry in entries_of(content, kind):
                by_path[str(entry["path"])].setdefault(stage, entry)
    for path, entries in sorted(by_path.items()):
        if not files.exists(path):
            known = f"is not here; {ways.get(path)} {path}"
            other = f"is not here, and no stage of {PLAN} reads or writes it now"
            yield Finding(MISSING, path, known if path in ways else other)
            continue
        found = describe_path(path)
        wrong = [stage for stage, entry in entries.items() if not is_described(entry, found)]
        of_both = f"is not the one that {LOCK} records"
        if changed := changed_files(path) if wrong else []:
            of_both += f"; changed since the last commit: {name_some(changed, SHOWN)}"
        where = f"{of_both} (stages {', '.join(wrong)})"
        yield judge(path, [where] if wrong else [], fits=f"is the one that {LOCK} records")


def ways_back(planned: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, str]:
    """Return the command that brings each file or folder which a stage of dvc.yaml names."""
    named = {
        path
        for stage in planned.values()
        for kind in ("deps", *OUTPUTS)
        for path in listed(stage, kind, values)
    }
    return dict.fromkeys(named, "git restore") | dict.fromkeys(brought(planned), "dvc pull")


def brought(planned: Mapping[str, Any]) -> Iterator[str]:
    """Yield the outputs that DVC keeps; git has those with `cache: false`."""
    for stage in planned.values():
        for item in (item for kind in OUTPUTS for item in stage.get(kind, [])):
            name, options = next(iter(item.items())) if isinstance(item, dict) else (item, {})
            if options.get("cache", True):
                yield name


def is_described(entry: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Return whether an entry of dvc.lock is what `describe_path` found, but for its path."""
    return {key: entry[key] for key in entry if key not in ("path", "isexec")} == found


def describe_path(path: str | Path) -> dict[str, Any]:
    """Return what dvc.lock has of a file, or of a folder, as it is now: hash and size."""
    path = Path(path)
    if not path.is_dir():
        return {"hash": "md5", "md5": _md5(path), "size": path.stat().st_size}
    there = sorted(file for file in path.rglob("*") if file.is_file() and not _is_ignored(file))
    rows = [{"md5": _md5(file), "relpath": file.relative_to(path).as_posix()} for file in there]
    rows.sort(key=lambda row: row["relpath"])
    digest = hashlib.md5(json.dumps(rows, sort_keys=True).encode("utf-8"), usedforsecurity=False)
    size = sum(file.stat().st_size for file in there)
    return {"hash": "md5", "md5": f"{digest.hexdigest()}.dir", "size": size, "nfiles": len(there)}


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return digest.hexdigest()


def _is_ignored(path: Path) -> bool:
    return any(fnmatch(part, pattern) for part in path.parts for pattern in _ignored_names())


@cache
def _ignored_names() -> list[str]:
    """Return the patterns of .dvcignore that are of a name alone, wherever it stands."""
    text = files.read_text(".dvcignore") if files.exists(".dvcignore") else ""
    lines = (line.strip() for line in text.splitlines())
    names = (line.rstrip("/").replace("\\", "") for line in lines if not line.startswith("#"))
    return [name for name in names if name and "/" not in name]
