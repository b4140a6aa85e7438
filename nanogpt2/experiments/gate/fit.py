"""Whether dvc.lock is the record of what lies here, without the data that DVC keeps elsewhere.

`dvc status` calls each file that is not pulled deleted or not in cache, and cannot say more; here
what is missing is taken from the record, where all who read a file must have read what was written.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.words import name_some
from nanogpt2.config import yaml12
from nanogpt2.experiments.proof.record import (
    LOCK,
    PARAMETERS,
    PLAN,
    SHOWN,
    added,
    brought,
    describe_path,
    entries_of,
    is_described,
    other_form,
    other_links,
    other_parameters,
    other_stages,
    stages_of,
)

STAGES = 3  # named of those that have one reason
MEND = "run dvc repro, and commit dvc.lock, metrics and plots"


def describe_fit() -> str:
    """Return in a line that dvc.lock fits; DataError, in a line too, where it does not.

    The line names what is otherwise, the stages that would run for it, and what to do.
    """
    if not files.exists(LOCK):
        raise DataError(f"{LOCK}: no such file: {MEND}")
    lock, plan, values = map(yaml12.read, (LOCK, PLAN, PARAMETERS))
    if form := other_form(lock):
        raise DataError(f"{LOCK}: {form[0]}: {MEND}")
    recorded, planned = stages_of(lock), stages_of(plan)
    stages: dict[str, list[str]] = defaultdict(list)
    for stage, why in find_reasons(recorded, planned, values):
        stages[why].append(stage)
    if stages:
        told = [f"{why} ({name_some(found, STAGES)})" for why, found in stages.items()]
        raise DataError(f"{LOCK} is not of what lies here: {name_some(told, SHOWN)}: {MEND}")
    return f"{LOCK} is of this {PARAMETERS}, {PLAN}, code, metrics and plots{_not_here(recorded)}"


def find_reasons(
    recorded: Mapping[str, Any], planned: Mapping[str, Any], values: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield (stage, why its record does not fit), in the order of what a person changes."""
    for stage, key in other_parameters(recorded, values):
        yield stage, f"{key} of {PARAMETERS}"
    yield from other_stages(recorded, planned, values)
    yield from other_links(recorded)
    kept, describe = set(brought(planned)), cache(describe_path)  # rooms are read by many stages
    for stage, content in recorded.items():
        for kind in ("deps", "outs"):
            for entry in entries_of(content, kind):
                path = str(entry["path"])
                if files.exists(path):
                    if not is_described(entry, describe(path)):
                        yield stage, path
                elif path not in kept and added(path) is None:
                    yield stage, f"{path} is not here"


def _not_here(recorded: Mapping[str, Any]) -> str:
    entries = [
        str(entry["path"])
        for stage in recorded.values()
        for kind in ("outs", "deps")
        for entry in entries_of(stage, kind)
    ]
    missing = sorted({path for path in entries if not files.exists(path)})
    return f" (by their recorded hashes: {name_some(missing, SHOWN)})" if missing else ""
