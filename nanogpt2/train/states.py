"""The states of the run under way: what they hold, and on what they depend."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from nanogpt2.base.checksums import hash_code
from nanogpt2.base.errors import DataError
from nanogpt2.config.config import Config
from nanogpt2.model.checkpoint import hash_weights
from nanogpt2.report.stopwatch import Stopwatch
from nanogpt2.tokens.dataset import Dataset, TokenDataset
from nanogpt2.train import resume
from nanogpt2.train.record import TrainingRecord
from nanogpt2.train.step import Stepper

# The rooms on which trained weights depend: a state is of no use to other versions of these.
TRAINING_ROOMS = (
    *("base", "config", "device", "bpe", "tokens", "model", "checks", "kernels"),
    *("finetune", "distil", "optimizers", "train"),
)


class RunStates:
    """Saves and loads states of the run of `stepper` on `datasets`, kept under `root`.

    With save_checkpoint false, or datasets whose tokens are not known, none is kept.
    """

    def __init__(
        self,
        root: Path,
        stepper: Stepper,
        datasets: tuple[Dataset, Dataset],
        *,
        say: Callable[[str], None],
        stopwatch: Stopwatch,
    ) -> None:
        self.stepper, self.say, self.stopwatch = stepper, say, stopwatch
        self.files: resume.StateFiles | None = None
        if not stepper.config.save_checkpoint:
            return
        known = [dataset for dataset in datasets if isinstance(dataset, TokenDataset)]
        if len(known) < 2:
            say("warning: no state is kept: the datasets are not CharDataset or TokenDataset")
            return
        facts = {
            "config": stepper.config.training_dict(),
            "data": [dataset.sha256() for dataset in known],
            "separator": known[0].separator,
            "weights": hash_weights(stepper.model.state_dict(), whole=stepper.group.whole),
            "teachers": [teacher.sha256 for teacher in stepper.teachers],
            "code": hash_code(TRAINING_ROOMS),
            "torch": torch.__version__,
            "device": stepper.device.type,
            "operators": type(stepper.operators).__name__,
            "group": [stepper.group.kind, stepper.group.size],
        }
        self.files = resume.StateFiles(root / resume.fingerprint(facts), stepper.group)

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Keep other processes from this run; see StateFiles."""
        if self.files is None:
            yield
            return
        with self.files.locked(wait=wait):
            self.files.describe(describe_run(self.stepper.config))
            yield

    def load(self) -> TrainingRecord:
        """Bring the run to its newest whole state; return the record, a new one without a state."""
        if self.files is None:
            return TrainingRecord()
        if not resume.is_wanted():
            self.files.clear()
        state, warnings = self.files.load()
        for warning in warnings:
            self.say(warning)
        if state is None:
            return TrainingRecord()
        self.stepper.load_state_dict(state["stepper"])
        record = TrainingRecord(**state["record"])
        self.say(f"going on from iteration {record.step}; NANOGPT2_RESUME=0 starts afresh")
        return record

    def save(self, record: TrainingRecord) -> bool:
        """Save a state; return whether one is kept. A full disk costs the state, not the run."""
        if self.files is None:
            return False
        state = {"record": asdict(record), "stepper": self.stepper.state_dict()}
        try:
            with self.stopwatch.measure("saving"):
                self.files.save(record.step, state)
        except DataError as error:
            self.say(f"warning: no state saved at iteration {record.step}: {error}")
        return bool(self.files.paths())

    def finish(self, record: TrainingRecord) -> None:
        """Remove all that is kept of the run, or leave its end to a process that waits for it."""
        if self.files is None:
            return
        if self.files.is_awaited():
            self.save(record)
        else:
            self.files.delete()


def describe_run(config: Config) -> str:
    """Return the shape and schedule of a run in one line."""
    return (
        f"max_iters {config.max_iters}, learning_rate {config.learning_rate:g}, n_layer"
        f" {config.n_layer}, n_embd {config.n_embd}, block_size {config.block_size},"
        f" batch_size {config.batch_size}, seed {config.seed}"
    )
