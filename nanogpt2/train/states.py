"""The states of the run under way: what they hold, and on what they depend."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nanogpt2.base.system.checksums import hash_code
from nanogpt2.base.system.errors import DataError
from nanogpt2.config.config import Config
from nanogpt2.model.checkpoint import hash_weights
from nanogpt2.report.stopwatch import Stopwatch
from nanogpt2.report.unfinished import tell_left
from nanogpt2.tokens.dataset import Dataset, TokenDataset
from nanogpt2.train.record import TrainingRecord
from nanogpt2.train.step import Stepper
from nanogpt2.train.unfinished import resume
from nanogpt2.train.unfinished.aside import StateWriter, bytes_of

# The rooms on which trained weights depend: a state is of no use to other versions of these.
# The name of a wing stands for all its rooms.
TRAINING_ROOMS = ("base/system", "config", "device", "tokens", "model", "kernels", "train")
SETTLED = 8  # steps, after which a GPU's are captured and there is time to take memory


class RunStates:
    """Saves and loads states of the run of `stepper` on `datasets`, kept under `root`.

    With save_checkpoint false, or datasets whose tokens are not known, none is kept. In a group the
    main process alone writes them, while the run goes on.
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
        self.writer: StateWriter | None = None
        self.first = 0  # step of this process
        if not stepper.config.save_checkpoint:
            return
        known = [dataset for dataset in datasets if isinstance(dataset, TokenDataset)]
        if len(known) < 2:
            say("warning: no state is kept: the datasets are not CharDataset or TokenDataset")
            return
        self.facts = {
            "config": stepper.config.training_dict(),
            "data": [dataset.sha256() for dataset in known],
            "separator": known[0].separator,
            "weights": hash_weights(stepper.model.state_dict(), whole=stepper.group.whole),
            "teachers": [teacher.sha256 for teacher in stepper.teachers],
            "code": hash_code(TRAINING_ROOMS),
            "torch": torch.__version__,
            "device": stepper.device.type,
            "operators": type(stepper.operators).__name__,
        }
        self.files = resume.StateFiles(root / resume.fingerprint(self.facts), stepper.group)
        if stepper.group.is_main:
            self.writer = StateWriter(self.files, stepper.device)

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Keep other processes from this run; see StateFiles."""
        if self.files is None:
            yield
            return
        with self.files.locked(wait=wait):
            self.files.describe(describe_run(self.stepper.config), self.facts)
            try:
                yield
            finally:  # whatever ends the run, what is being written becomes whole
                self._tell(waiting=True)
                if self.writer:
                    self.writer.close()

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
            if resume.is_wanted() and self.writer:
                self._say_left(self.files.folder)
            return TrainingRecord()
        found, own = state["computed"], self._computed()
        changes = [f"{key}: {found[key]} -> {own[key]}" for key in own if found[key] != own[key]]
        if changes:
            state["stepper"]["micro_batch"] = self.stepper.micro_batch.size  # of another share
        self.stepper.load_state_dict(state["stepper"])
        record = TrainingRecord(**state["record"])
        self.first = record.step
        differs = f" with {', '.join(changes)}, so not to the bit" if changes else ""
        self.say(f"going on from iteration {record.step}{differs}; NANOGPT2_RESUME=0 starts afresh")
        return record

    def _say_left(self, folder: Path) -> None:
        """Say which unfinished run is not continued, and why."""
        if line := tell_left(folder, lambda other: resume.StateFiles(other).is_under_way()):
            self.say(line)

    def _computed(self) -> dict[str, Any]:
        """Return what else the bits of the result depend on, with which a run may yet go on.

        Nothing, where it has shards.
        """
        group, on_cpu = self.stepper.group, self.stepper.device.type == "cpu"
        if self.stepper.config.shards > 1:
            return {}
        return {
            "num_processes": group.size,
            "parallel": "fsdp" if group.kind == "fsdp" else "ddp",
            "threads": torch.get_num_threads() if on_cpu else 0,
        }

    def begin_save(self, record: TrainingRecord) -> None:
        """Begin to save a state; the run goes on meanwhile, and waits where one is being written.

        A full disk costs the state, not the run.
        """
        if self.files is None:
            return
        with self.stopwatch.measure("saving"):
            self._tell(waiting=True)
            state = self.stepper.group.gather(self._state(record))
            if self.writer:
                self.writer.begin(record.step, state)

    def step_done(self, record: TrainingRecord) -> None:
        """Say what became of a state as soon as it is known, and make room for the first one."""
        self._tell(waiting=False)
        if record.step == self.first + SETTLED and self.writer and self._will_save(record):
            weights = {} if record.best_weights else self.stepper.model.state_dict()
            self.writer.make_room(bytes_of(self._state(record)) + bytes_of(weights))

    def _will_save(self, record: TrainingRecord) -> bool:
        config = self.stepper.config
        return self.stepper.group.kind != "fsdp" and (
            record.step + -record.step % config.checkpoint_interval < config.max_iters
        )

    def _tell(self, *, waiting: bool) -> None:
        if self.writer and (error := self.writer.ended(waiting=waiting)):
            self._warn(self.writer.step, error)

    def _warn(self, step: int, error: DataError) -> None:
        self.say(f"warning: no state saved at iteration {step}: {error}")

    def save(self, record: TrainingRecord) -> bool:
        """Save a state, the last of this process; return whether one is kept."""
        if self.files is None:
            return False
        self._tell(waiting=True)
        try:
            with self.stopwatch.measure("saving"):
                self.files.save(record.step, self._state(record))
        except DataError as error:
            self._warn(record.step, error)
        return bool(self.files.paths())

    def _state(self, record: TrainingRecord) -> dict[str, Any]:
        return {
            "record": dict(vars(record)),
            "stepper": self.stepper.state_dict(),
            "computed": self._computed(),
        }

    def finish(self, record: TrainingRecord) -> None:
        """Remove all that is kept of the run, or leave its end to a process that waits for it."""
        if self.files is None:
            return
        self._tell(waiting=True)
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
