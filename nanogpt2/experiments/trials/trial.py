"""Trials: a setting that is run once, what became of it, and the file that remembers.

`logs/sweeps/NAME.json` is written whole whenever a trial begins or ends, so that a sweep that was
killed knows where it was; what the trial printed is in `logs/sweeps/NAME.log`.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.files import sha256, write_json
from nanogpt2.config.config import PREPARE_KEYS, make_config
from nanogpt2.experiments.trials.space import Setting, apply

FOLDER = Path("logs/sweeps")
DATA_KEYS = ("corpus", "init_from", "tokenizer", "val_fraction", "test_fraction", *PREPARE_KEYS)

WAITING, RUNNING, FINISHED = "waiting", "running", "finished"
STOPPED, FAILED = "stopped", "failed"


@dataclass
class Trial:
    """A setting to run, and what is known of it. Losses are in nats per token, by step."""

    name: str
    setting: Setting
    data_key: str = ""  # the same for trials that read the same tokens
    train_key: str = ""  # the same for trials that train the same weights
    of: int = 0  # steps
    state: str = WAITING
    base: str = ""
    attempts: int = 0
    seconds: float = 0.0
    losses: dict[int, float] = field(default_factory=dict)
    left: str = ""  # time, as training says it
    figures: Mapping[str, Any] = field(default_factory=dict)  # metrics/eval.json

    @property
    def log(self) -> Path:
        """Return the file of what it prints."""
        return FOLDER / f"{self.name}.log"

    @property
    def step(self) -> int:
        """Return the step of the last evaluation; 0 where there was none."""
        return max(self.losses, default=0)

    @property
    def best(self) -> float | None:
        """Return the lowest validation loss that training has told."""
        return min(self.losses.values(), default=None)

    @property
    def title(self) -> str:
        """Return its setting in words."""
        return " ".join(self.setting) or "params.yaml as it is"

    def figure(self, split: str, name: str) -> float:
        """Return a figure of a finished trial; DataError where evaluation left none."""
        try:
            return float(self.figures[split][name])
        except (KeyError, TypeError) as error:
            raise DataError(f"experiment {self.name}: no {name} on the {split} split") from error

    def write(self) -> None:
        """Remember the trial as it is."""
        kept = asdict(self)
        del kept["left"]
        write_json(FOLDER / f"{self.name}.json", kept)

    def recall(self, base: str, kept: set[str], *, stopped: bool = True) -> None:
        """Take over what an earlier call on the same `base` found out.

        An experiment that is not among the `kept` any more is run again, and so is what failed, and
        what was `stopped` where that does not count.
        """
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads((FOLDER / f"{self.name}.json").read_text(encoding="utf-8"))
            if found["base"] == base and tuple(found["setting"]) == self.setting:
                losses = {int(step): float(loss) for step, loss in found["losses"].items()}
                state, seconds, figures = found["state"], found["seconds"], found["figures"]
                if (state == STOPPED and stopped) or (state == FINISHED and self.name in kept):
                    self.state, self.seconds, self.figures = state, seconds, figures
                    self.losses, self.attempts = losses, found["attempts"]
        self.base = base


def make_trial(name: str, setting: Setting, values: Mapping[str, Any]) -> Trial:
    """Return the trial of a valid `setting` of the `values` of params.yaml."""
    config = make_config(apply(values, setting), name=name)
    data = {key: config.to_dict()[key] for key in (*DATA_KEYS, "vocab_size", "block_size")}
    keys = (json.dumps(each, sort_keys=True) for each in (data, data | config.training_dict()))
    data_key, train_key = (sha256(key.encode())[:12] for key in keys)
    return Trial(name, setting, data_key, train_key, of=config.max_iters)


def digest(settings: Sequence[str], length: int = 6) -> str:
    """Return a short name of settings as they are written."""
    return sha256("\n".join(settings).encode("utf-8"))[:length]
