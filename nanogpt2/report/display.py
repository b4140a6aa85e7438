"""What a training run shows: its lines and bar, advice said once, and a report at its end."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, Protocol

import torch

from nanogpt2.base.screen.screen import done
from nanogpt2.config.config import Config
from nanogpt2.model.gpt import GPT
from nanogpt2.report.advice import advise
from nanogpt2.report.hardware import EnergyMeter
from nanogpt2.report.live import LiveFile
from nanogpt2.report.loggers import Logger
from nanogpt2.report.progress import Progress
from nanogpt2.report.recorded import RecordedRun
from nanogpt2.report.report import make_report
from nanogpt2.report.stopwatch import Stopwatch

P = ParamSpec("P")
OnEvaluation = Callable[[Sequence[Mapping[str, float]]], None]


class Record(Protocol):
    """What a run has found out so far."""

    step: int
    history: list[dict[str, float]]

    def metrics(self) -> dict[str, float]: ...


def harmless(
    show: "Callable[Concatenate[RunDisplay, P], None]",
) -> "Callable[Concatenate[RunDisplay, P], None]":
    """Let `show` end no run: what goes wrong in it is said once, where that is possible.

    Output fails in many ways: a full disk, a closed terminal, a pipe whose reader is gone, a
    driver's library that answers nonsense. None is worth the steps that were trained.
    """

    @wraps(show)
    def guarded(display: "RunDisplay", /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            show(display, *args, **kwargs)
        except Exception as error:  # of whatever kind
            if not display.failed:
                display.failed = True
                with suppress(Exception):
                    line = f"warning: not all of this run can be shown: {error}"
                    print(line, file=sys.stderr, flush=True)

    return guarded


class RunDisplay:
    """Shows a run of `processes` that train one model; only the main one's is `shown`.

    Lines also go to `log_file`, the report to a .json file of its name, and where the run is to
    live.json beside it. Advice looks at the run's losses, and at those of a `recorded` one.
    `on_evaluation` gets all rows after each.
    """

    def __init__(
        self,
        config: Config,
        stopwatch: Stopwatch,
        *,
        log_file: Path | None,
        shown: bool,
        processes: int,
        recorded: RecordedRun | None = None,
        on_evaluation: OnEvaluation | None = None,
    ) -> None:
        self.recorded, self.on_evaluation = recorded, on_evaluation
        self.config, self.stopwatch, self.processes = config, stopwatch, processes
        self.progress = Progress(log_file, stopwatch, shown=shown)
        self.logger = Logger(config, self.say, wanted=shown)
        self.advised: set[str] = set()
        self.failed = False
        self.first = self.tokens_per_step = self.step = 0
        self.live: LiveFile | None = None

    @harmless
    def say(self, line: str) -> None:
        """Show `line`."""
        self.progress.say(line)

    @harmless
    def begin(
        self,
        device: torch.device,
        step: int,
        *,
        windows: int,
        name: str | None = None,
    ) -> None:
        """Begin at `step` of `windows` each; loggers know a run that goes on by its `name`."""
        self.logger.begin(step, name)
        self.energy = EnergyMeter(device)
        self.first, self.tokens_per_step = step, windows * self.config.block_size
        self.step = step
        last, tokens = self.config.max_iters, self.tokens_per_step
        self.progress.begin(step, last, tokens_per_step=tokens)
        if self.progress.log_file is not None and self.progress.shown:
            path = self.progress.log_file.with_name("live.json")
            self.live = LiveFile(path, self.config.to_dict(), max_iters=last)
            self.live.begin(step, tokens_per_step=tokens)
        self.stopwatch.start()

    @harmless
    def started(self, train_loss: float, val_loss: float) -> None:
        """Show the losses before the first step."""
        self.progress.evaluated(0, train_loss=train_loss, val_loss=val_loss)
        self.logger.log([{"iter": 0, "train_loss": train_loss, "val_loss": val_loss}])

    @harmless
    def step_done(self) -> None:
        """Count one step."""
        self.progress.step_done()
        self.step += 1
        if self.live:
            self.live.passed(self.step)

    @harmless
    def evaluated(
        self, history: Sequence[Mapping[str, float]], device: torch.device, dtype: torch.dtype
    ) -> None:
        """Show the last row of `history`, and what advice the rows call for."""
        self.energy.update()
        if self.live:
            self.live.evaluated(history)
        row, step = history[-1], int(history[-1]["iter"])
        self.progress.evaluated(step, train_loss=row["train_loss"], val_loss=row["val_loss"])
        self.logger.log(history, speed=self.progress.speed)
        advice = advise(
            history,
            vocab_size=self.config.vocab_size,
            max_iters=self.config.max_iters,
            recorded=self.recorded,
            seconds_left=self.progress.seconds_left(step),
            device=device.type,
            mixed_precision=dtype != torch.float32,
        )
        for topic, line in advice.items():
            if topic not in self.advised:
                self.advised.add(topic)
                self.say(line)
        if self.on_evaluation and self.progress.shown:
            self.on_evaluation(history)

    @harmless
    def end(
        self, model: GPT, record: Record, device: torch.device, dtype: torch.dtype, *, well: bool
    ) -> None:
        """Take the bar away, and show the report of the steps since `begin`.

        Say where the result is, if the run came to its end, all `well`.
        """
        self.progress.end()
        step, history = record.step, record.history
        if self.live:
            self.live.end()
        if well and self.progress.shown:
            done(f"{step:,} iterations", to=Path(self.config.checkpoint_dir, "best_model.pt"))
        self.logger.log(history)
        self.logger.end(step, record.metrics() if well else None)
        if step == self.first or not self.progress.shown:
            return
        report = make_report(
            model,
            self.config,
            device,
            dtype,
            steps=(self.first, step),
            tokens=(step - self.first) * self.tokens_per_step,
            stopwatch=self.stopwatch,
            energy=self.energy,
            processes=self.processes,
        )
        self.say(report.describe())
        if self.progress.log_file is not None:
            report.write(self.progress.log_file.with_suffix(".json"), say=self.say)
