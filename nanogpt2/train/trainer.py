"""The training loop: step, evaluate now and then, keep a state to go on from.

Every random number is a function of the seed and the step: a run that goes on from a state ends
with the bytes of one that was never interrupted.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nanogpt2.base.system.errors import DataError, NanoGPT2Error, TrainingError
from nanogpt2.base.system.signals import Interrupted, Interruption, caught_signals
from nanogpt2.config.config import Config, check_same_model, make_config
from nanogpt2.device.group import SINGLE, Group
from nanogpt2.model.gpt import unwrapped
from nanogpt2.model.modes import kept_generators
from nanogpt2.report.display import OnEvaluation, RunDisplay
from nanogpt2.report.recorded import RecordedRun
from nanogpt2.report.stopwatch import Stopwatch
from nanogpt2.tokens.dataset import Dataset, check_dataset, with_same_tokens
from nanogpt2.train.distil.ahead import release, released
from nanogpt2.train.distil.teachers import Teacher, check_together
from nanogpt2.train.estimate import estimate_loss
from nanogpt2.train.losses import UNREAD_REPORTS, LossWatch
from nanogpt2.train.record import Save, TrainingRecord
from nanogpt2.train.states import RunStates
from nanogpt2.train.step import Stepper, no_check


class Trainer:
    """Trains `model`, or what torch.compile or DDP wraps around it, on the configuration's device.

    States of unfinished runs are kept under `resume_root` (see `save_checkpoint`); `log_file`
    receives the lines that are printed, and a .json file of its name the report of the run, for
    which `stopwatch` tells the time. Losses far behind those of the `recorded` run are told.
    `on_evaluation` is called with the history after each evaluation, to show it elsewhere. Each
    process of a `group` has a trainer of its own, and calls the same methods; the main one alone
    prints and writes. Evaluations tell the plain loss, also where training follows `teachers`,
    those of `config` unless given. ConfigError where `config` describes another model.
    """

    def __init__(
        self,
        model: nn.Module,
        config: Config | Mapping[str, Any],
        teachers: Sequence[Teacher] | None = None,
        *,
        resume_root: str | Path = Path(".resume"),
        log_file: str | Path | None = None,
        stopwatch: Stopwatch | None = None,
        recorded: RecordedRun | None = None,
        on_evaluation: OnEvaluation | None = None,
        group: Group = SINGLE,
    ) -> None:
        if not isinstance(config, Config):
            config = make_config(config, name="configuration")
        self.config, self.model, self.group = config, unwrapped(model), group
        check_same_model(self.model.config, config)
        self.resume_root = Path(resume_root)
        self.stopwatch = clock = stopwatch or Stopwatch()
        self.display = RunDisplay(
            config,
            self.stopwatch,
            log_file=None if log_file is None else Path(log_file),
            shown=group.is_main,
            processes=group.size,
            recorded=recorded,
            on_evaluation=on_evaluation,
        )
        say = self.display.say
        self.stepper = Stepper(self.model, config, teachers, say=say, stopwatch=clock, group=group)
        self.record = TrainingRecord()
        self.losses = LossWatch(
            config.on_nonfinite,
            say=say,
            lag=UNREAD_REPORTS if self.stepper.device.type == "cuda" else 1,
            scales=self.stepper.loss_scale is not None,
        )

    def train(
        self,
        train_dataset: Dataset | None = None,
        val_dataset: Dataset | None = None,
        *,
        save: Save | None = None,
        wait: bool = False,
    ) -> TrainingRecord:
        """Train for `max_iters` steps and return the record; the model keeps the last weights.

        It is in training mode then, and torch's generators are as they were.
        A run that was cut off goes on from its last state, which is given up only once `save` has
        returned; it receives the record and the `final` and `best` weights, or the best alone
        where a loss that is not finite stopped the run, and in a group the main process alone calls
        it. With `wait`, the same run in another process is waited for, and its end taken over.
        Raises DataError where a dataset is missing, TrainingError where the run is interrupted, not
        finite, under way elsewhere or at its end, DeviceError where memory is too small.
        """
        datasets = self._check(train_dataset, val_dataset)
        folder = Path(self.config.checkpoint_dir)
        self.group.from_main(lambda: folder.mkdir(parents=True, exist_ok=True))
        states = RunStates(
            self.resume_root, self.stepper, datasets,
            say=self.display.say, stopwatch=self.stopwatch,
        )  # fmt: skip
        stepper, device = self.stepper, self.stepper.device
        with kept_generators(device), stepper.computing(), states.locked(wait=wait):
            self.record, windows = states.load(), stepper.windows_per_step
            name = states.files.folder.name if states.files else None
            self.display.begin(device, self.record.step, windows=windows, name=name)
            well = False
            try:
                self._run(datasets, states, save)
                states.finish(self.record)
                release(self.model)
                well = True
            finally:
                self.display.end(self.model, self.record, device, stepper.dtype, well=well)
                stepper.release()
        return self.record

    def _check(
        self, train_dataset: Dataset | None, val_dataset: Dataset | None
    ) -> tuple[Dataset, Dataset]:
        """Return the datasets in the same tokens; raise what keeps this trainer from training."""
        if self.record.is_over(self.config):
            raise TrainingError(
                f"this trainer has trained already, to iteration {self.record.step}; for another"
                " run make a new Trainer, for a longer one with a larger max_iters"
            )
        if train_dataset is None or val_dataset is None:
            raise DataError("train needs two datasets: trainer.train(train_dataset, val_dataset)")
        datasets = train_dataset, with_same_tokens(train_dataset, val_dataset)
        sizes = {"block_size": self.config.block_size, "vocab_size": self.config.vocab_size}
        for name, dataset in zip(("train_dataset", "val_dataset"), datasets, strict=True):
            check_dataset(dataset, name=name, **sizes)
            check_together(self.stepper.teachers, dataset)
        if line := self.stepper.batches.prepare(train_dataset):
            self.display.say(line)
        return datasets

    def _run(self, datasets: tuple[Dataset, Dataset], states: RunStates, save: Save | None) -> None:
        """Train to the end and save; whatever ends it early, the last good state is kept."""
        try:
            with caught_signals(self.group.agreement()) as interruption:
                self._loop(datasets, states, interruption)
                self.stepper.ema.keep()
                if save:  # a signal that comes now is late: the run ends well
                    self._save_results(save, states)
        except TrainingError:
            if save and self.record.best_weights:
                self._hand_over(save, {"best": self.record.best_weights})
            raise
        except Interrupted as signal:
            self.losses.read()
            kept = states.save(self.record)
            raise TrainingError(
                f"interrupted by {signal} after iteration {self.record.step};"
                + (" the same command goes on from there" if kept else " no state was kept")
            ) from signal

    def _loop(
        self, datasets: tuple[Dataset, Dataset], states: RunStates, interruption: Interruption
    ) -> None:
        """Step after step, with an evaluation and a state now and then, until the run is over.

        `Stepper.step` draws the batch of a step (a function of seed and step), adds up its gradient
        over micro-batches, averages it over the group, clips it, and lets the optimizers and the
        EMA move; `LossWatch` looks at the loss that it reports, on a GPU some steps later.
        """
        config, record, stepper = self.config, self.record, self.stepper
        saved = record.step
        # Within a step each process of a group is on its own: they can only stop before the next.
        check = interruption.check if self.group.size == 1 else no_check
        self.model.train()
        if not record.step:
            with self.stopwatch.measure("evaluation"):
                self.display.started(*self._losses(datasets, interruption))
        while True:
            if record.evaluation_is_due(config):
                self._evaluate(datasets, interruption)
            if record.is_over(config):
                return
            if record.step % config.checkpoint_interval == 0 and record.step > saved:
                saved = record.step
                self.losses.read()
                states.begin_save(record)
            interruption.check()
            with self.stopwatch.measure("step"):
                report = stepper.step(datasets[0], record.step, check=check)
                record.step += 1
                self.losses.take(report)
                if record.evaluation_is_due(config):
                    stepper.synchronize()
            self.display.step_done()
            states.step_done(record)

    def _evaluate(self, datasets: tuple[Dataset, Dataset], interruption: Interruption) -> None:
        """Add a row to the history, keep the best weights, print the line and any advice."""
        with self.stopwatch.measure("step"):  # a GPU may have steps to catch up with
            self.losses.read()
        record, stepper = self.record, self.stepper
        with self.stopwatch.measure("evaluation"), stepper.ema.applied():
            train_loss, val_loss = self._losses(datasets, interruption)
            rate = stepper.learning_rate(record.step - 1)
            if record.add(train_loss=train_loss, val_loss=val_loss, learning_rate=rate):
                record.keep_best(released(self.model.state_dict()))
            self.display.evaluated(record.history, stepper.device, stepper.dtype)

    def _losses(
        self, datasets: tuple[Dataset, Dataset], interruption: Interruption
    ) -> tuple[float, float]:
        check = interruption.check
        train, val = (estimate_loss(self.stepper, each, check=check) for each in datasets)
        return train, val

    def _save_results(self, save: Save, states: RunStates) -> None:
        weights = {"final": released(self.model.state_dict()), "best": self.record.best_weights}
        try:
            with self.stopwatch.measure("saving"):
                self._hand_over(save, weights)
        except NanoGPT2Error:
            states.save(self.record)
            raise

    def _hand_over(self, save: Save, weights: dict[str, dict[str, Tensor]]) -> None:
        """Let the main process save the record and `weights`."""
        gathered = self.group.gather(weights)
        self.group.from_main(lambda: save(self.record, gathered))
