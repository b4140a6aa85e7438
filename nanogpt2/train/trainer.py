"""The training loop: step, evaluate now and then, keep a state to go on from.

Every random number is a function of the seed and the step: a run that goes on from a state ends
with the bytes of one that was never interrupted.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanogpt2.base.errors import DataError, NanoGPT2Error, TrainingError
from nanogpt2.base.files import sha256
from nanogpt2.base.signals import Interrupted, Interruption, caught_signals
from nanogpt2.config.config import Config, make_config
from nanogpt2.device.group import SINGLE, Group
from nanogpt2.model.gpt import GPT
from nanogpt2.report.advice import LossWatch, advise
from nanogpt2.report.hardware import EnergyMeter
from nanogpt2.report.progress import Progress
from nanogpt2.report.report import make_report
from nanogpt2.report.stopwatch import Stopwatch
from nanogpt2.tokens.dataset import Dataset, TokenDataset, check_tokens, with_same_tokens
from nanogpt2.train import resume
from nanogpt2.train.record import TrainingRecord
from nanogpt2.train.step import Stepper, StepReport, no_check

# The rooms on which trained weights depend: a state is of no use to other versions of these.
TRAINING_ROOMS = ("base", "config", "device", "tokens", "model", "kernels", "train")
UNREAD_REPORTS = 32  # steps that a GPU may run ahead of the look at their losses


Save = Callable[[TrainingRecord, dict[str, dict[str, Tensor]]], None]


class Trainer:
    """Trains `model` on the configuration's device.

    States of unfinished runs are kept under `resume_root` (see `save_checkpoint`); `log_file`
    receives the lines that are printed, and a .json file of its name the report of the run, for
    which `stopwatch` tells the time. Each process of a `group` has a trainer of its own, and
    calls the same methods; the main one alone prints and writes.
    """

    def __init__(
        self,
        model: GPT,
        config: Config | Mapping[str, Any],
        *,
        resume_root: Path = Path(".resume"),
        log_file: Path | None = None,
        stopwatch: Stopwatch | None = None,
        group: Group = SINGLE,
    ) -> None:
        if not isinstance(config, Config):
            config = make_config(config, name="configuration")
        self.config = config
        self.model = model
        self.group = group
        self.stopwatch = stopwatch or Stopwatch()
        self.progress = Progress(log_file, self.stopwatch, shown=group.is_main)
        self.stepper = Stepper(model, config, say=self._say, stopwatch=self.stopwatch, group=group)
        self.resume_root = resume_root
        self.energy = EnergyMeter(self.stepper.device)
        self.record = TrainingRecord()
        self.watch = LossWatch(config.on_nonfinite)
        self.unread: list[StepReport] = []
        self.advised: set[str] = set()

    def _say(self, line: str) -> None:
        self.progress.say(line)

    def train(
        self,
        train_dataset: Dataset | None = None,
        val_dataset: Dataset | None = None,
        *,
        save: Save | None = None,
    ) -> TrainingRecord:
        """Train for `max_iters` steps and return the record; the model keeps the last weights.

        A run that was cut off goes on from its last state, which is given up only once `save` has
        returned; it receives the record and the `final` and `best` weights, or the best alone
        where a loss that is not finite stopped the run, and in a group the main process alone calls
        it. Raises DataError where a dataset is missing, TrainingError where the run is interrupted,
        not finite, under way elsewhere or at its end, DeviceError where memory is too small.
        """
        if self._is_over():
            raise TrainingError(
                f"this trainer has trained already, to iteration {self.record.step}; for another"
                " run make a new Trainer, for a longer one with a larger max_iters"
            )
        if train_dataset is None or val_dataset is None:
            raise DataError("train needs two datasets: trainer.train(train_dataset, val_dataset)")
        datasets = train_dataset, with_same_tokens(train_dataset, val_dataset)
        for dataset in datasets:
            check_tokens(dataset, self.config.vocab_size)
        folder = Path(self.config.checkpoint_dir)
        self.group.from_main(lambda: folder.mkdir(parents=True, exist_ok=True))
        states = self._states(datasets)
        if states is None:
            self._run(datasets, None, save)
        else:
            with states.locked():
                states.describe(describe_run(self.config))
                self._resume(states)
                self._run(datasets, states, save)
                states.delete()
        return self.record

    def _run(
        self,
        datasets: tuple[Dataset, Dataset],
        states: resume.RunStates | None,
        save: Save | None,
    ) -> None:
        """Train to the end and save; whatever ends it early, the last good state is kept."""
        first, tokens = self.record.step, self.stepper.windows_per_step * self.config.block_size
        self.progress.begin(first, self.config.max_iters, tokens_per_step=tokens)
        self.stopwatch.start()
        try:
            with caught_signals(self.group.agreement()) as interruption:
                self._loop(datasets, states, interruption)
                self.stepper.keep_averages()
                if save:  # a signal that comes now is late: the run ends well
                    self._save_results(save, states)
        except TrainingError:
            if save and self.record.best_weights:
                self._hand_over(save, {"best": self.record.best_weights})
            raise
        except Interrupted as signal:
            kept = self._save_state(states)
            raise TrainingError(
                f"interrupted by {signal} after iteration {self.record.step};"
                + (" the same command goes on from there" if kept else " no state was kept")
            ) from signal
        finally:
            self.progress.end()
            self._report(first, (self.record.step - first) * tokens)
            self.stepper.release()

    def _loop(
        self,
        datasets: tuple[Dataset, Dataset],
        states: resume.RunStates | None,
        interruption: Interruption,
    ) -> None:
        config, record = self.config, self.record
        saved = record.step
        # Within a step each process of a group is on its own: they can only stop before the next.
        check = interruption.check if self.group.size == 1 else no_check
        self.model.train()
        while True:
            if self._evaluation_is_due():
                self._evaluate(datasets, interruption)
            if self._is_over():
                return
            if record.step % config.checkpoint_interval == 0 and record.step > saved:
                saved = record.step
                self._save_state(states)
            interruption.check()
            with self.stopwatch.measure("step"):
                report = self.stepper.step(datasets[0], record.step, check=check)
                record.step += 1
                self._read_later(report)
                if self._evaluation_is_due():
                    self.stepper.synchronize()
            self.progress.step_done()

    def _evaluation_is_due(self) -> bool:
        step = self.record.step
        done = self.record.history[-1]["iter"] if self.record.history else 0
        at_end = step == self.config.max_iters
        return step != done and (at_end or step % self.config.eval_interval == 0)

    def _evaluate(self, datasets: tuple[Dataset, Dataset], interruption: Interruption) -> None:
        """Add a row to the history, keep the best weights, print the line and any advice."""
        self._read_reports()
        self.energy.update()
        with self.stopwatch.measure("evaluation"), self.stepper.averaged():
            self._measure(datasets, interruption)

    def _measure(self, datasets: tuple[Dataset, Dataset], interruption: Interruption) -> None:
        record, step = self.record, self.record.step
        train_loss, val_loss = (
            self.stepper.estimate_loss(dataset, check=interruption.check) for dataset in datasets
        )
        rate = self.stepper.learning_rate(step - 1)
        if record.add(train_loss=train_loss, val_loss=val_loss, learning_rate=rate):
            record.keep_best(self.model.state_dict())
        self.progress.evaluated(step, train_loss=train_loss, val_loss=val_loss)
        self._advise()

    def _is_over(self) -> bool:
        """Return whether all steps are done, or patience is at its end."""
        record, patience = self.record, self.config.patience
        since_best = sum(row["iter"] > record.best_iter for row in record.history)
        return record.step == self.config.max_iters or (bool(patience) and since_best >= patience)

    def _advise(self) -> None:
        advice = advise(
            self.record.history,
            vocab_size=self.config.vocab_size,
            seconds_left=self.progress.seconds_left(self.record.step),
            device=self.stepper.device.type,
            mixed_precision=self.stepper.dtype != torch.float32,
        )
        for topic, line in advice.items():
            if topic not in self.advised:
                self.advised.add(topic)
                self._say(line)

    # --- Losses that are not finite, or far off ---

    def _read_later(self, report: StepReport) -> None:
        """Keep a step's report; a GPU's are read some steps later, so that it need not wait."""
        self.unread.append(report)
        if self.stepper.device.type != "cuda" or len(self.unread) == UNREAD_REPORTS:
            self._read_reports()

    def _read_reports(self) -> None:
        """Look at the losses of the steps that were not looked at yet."""
        if not self.unread:
            return
        with self.stopwatch.measure("step"):  # a GPU may have steps to catch up with
            figures = torch.stack([report.figures for report in self.unread]).tolist()
        reports, self.unread = self.unread, []
        for report, (loss, norm) in zip(reports, figures, strict=True):
            if self.stepper.loss_scale and np.isfinite(loss) and not np.isfinite(norm):
                continue  # float16: the step is skipped and the scale halved
            warning = self.watch.see(report.step, report.learning_rate, loss, norm)
            if warning:
                self._say(warning)

    # --- The state of an unfinished run ---

    def _states(self, datasets: tuple[Dataset, Dataset]) -> resume.RunStates | None:
        """Return where this run keeps its states; None where it keeps none."""
        if not self.config.save_checkpoint:
            return None
        tokens = [d.tokens for d in datasets if isinstance(d, TokenDataset)]
        if len(tokens) < 2:
            self._say("warning: no state is kept: the datasets are not CharDataset or TokenDataset")
            return None
        facts = {
            "config": self.config.training_dict(),
            "data": [sha256(np.ascontiguousarray(part).data) for part in tokens],
            "weights": resume.hash_tensors(map(self.group.whole, self.model.state_dict().values())),
            "code": resume.hash_code(TRAINING_ROOMS),
            "torch": torch.__version__,
            "device": self.stepper.device.type,
            "operators": type(self.stepper.operators).__name__,
            "group": [self.group.kind, self.group.size],
        }
        return resume.RunStates(self.resume_root / resume.fingerprint(facts), self.group)

    def _save_state(self, states: resume.RunStates | None) -> bool:
        """Save a state; return whether one is kept. A full disk costs the state, not the run."""
        if states is None:
            return False
        self._read_reports()
        state = {"record": asdict(self.record), "stepper": self.stepper.state_dict()}
        try:
            with self.stopwatch.measure("saving"):
                states.save(self.record.step, state)
        except DataError as error:
            self._say(f"warning: no state saved at iteration {self.record.step}: {error}")
        return bool(states.paths())

    def _resume(self, states: resume.RunStates) -> None:
        if not resume.is_wanted():
            states.clear()
        state, warnings = states.load()
        for warning in warnings:
            self._say(warning)
        if state is not None:
            self.stepper.load_state_dict(state["stepper"])
            self.record = TrainingRecord(**state["record"])
            self._say(
                f"going on from iteration {self.record.step}; NANOGPT2_RESUME=0 starts afresh"
            )

    def _save_results(self, save: Save, states: resume.RunStates | None) -> None:
        weights = {"final": self.model.state_dict(), "best": self.record.best_weights}
        try:
            with self.stopwatch.measure("saving"):
                self._hand_over(save, weights)
        except NanoGPT2Error:
            self._save_state(states)
            raise

    def _report(self, first: int, tokens: int) -> None:
        """Print the report of the steps that this process did, and write it beside the log."""
        if not tokens or not self.group.is_main:
            return
        report = make_report(
            self.model,
            self.config,
            self.stepper.device,
            self.stepper.dtype,
            steps=(first, self.record.step),
            tokens=tokens,
            stopwatch=self.stopwatch,
            energy=self.energy,
            processes=self.group.size,
        )
        self._say(report.describe())
        if self.progress.log_file is not None:
            report.write(self.progress.log_file.with_suffix(".json"), say=self._say)

    def _hand_over(self, save: Save, weights: dict[str, dict[str, Tensor]]) -> None:
        """Let the main process save the record and `weights`."""
        gathered = self.group.gather(weights)
        self.group.from_main(lambda: save(self.record, gathered))


def describe_run(config: Config) -> str:
    """Return the shape and schedule of a run in one line."""
    return (
        f"max_iters {config.max_iters}, learning_rate {config.learning_rate:g}, n_layer"
        f" {config.n_layer}, n_embd {config.n_embd}, block_size {config.block_size},"
        f" batch_size {config.batch_size}, seed {config.seed}"
    )
