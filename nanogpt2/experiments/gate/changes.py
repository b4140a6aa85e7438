"""What of a run is not as in another: parameters, and what its stages read."""

from collections.abc import Mapping
from typing import Any

from nanogpt2.config import yaml12
from nanogpt2.config.schema import flatten
from nanogpt2.experiments.gate.noise import Noise
from nanogpt2.experiments.proof.record import PARAMETERS, entries_of, look_up, stages_of

ABSENT = "absent"


def changed_parameters(base: Mapping[str, Any], head: Mapping[str, Any]) -> list[list[str]]:
    """Return [key, value in the base, value in the head] of each parameter that differs."""
    before, now = flatten(base), flatten(head)
    return [
        [key, *(_show(side, key) for side in (before, now))]
        for key in {**before, **now}
        if key not in before or key not in now or before[key] != now[key]
    ]


def changed_inputs(base: Mapping[str, Any], head: Mapping[str, Any]) -> list[str]:
    """Return what stages read, by two dvc.lock, that no stage wrote and that differs: code, text.

    params.yaml is told key by key.
    """
    before, now = _inputs(base), _inputs(head)
    return sorted(path for path in {**before, **now} if before.get(path) != now.get(path))


def other_settings(noise: Noise, base: Mapping[str, Any]) -> list[str]:
    """Return the parameters with which the noise was measured that the base has otherwise."""
    return [
        f"{key} {yaml12.show(value)}, now {yaml12.show(look_up(base, key))}"
        for key, value in noise.parameters.items()
        if look_up(base, key) != value
    ]


def _show(side: Mapping[str, Any], key: str) -> str:
    return yaml12.show(side[key]) if key in side else ABSENT


def _inputs(lock: Mapping[str, Any]) -> dict[str, Any]:
    stages = stages_of(lock).values()
    written = {str(entry["path"]) for stage in stages for entry in entries_of(stage, "outs")}
    read = {
        str(entry["path"]): entry.get("md5")
        for stage in stages
        for entry in entries_of(stage, "deps")
    }
    return {path: md5 for path, md5 in read.items() if path not in written and path != PARAMETERS}
