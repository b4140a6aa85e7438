"""Running trials side by side, each in a copy of the project of its own, until all have ended.

What is killed goes on: this process, since trials remember their state and go on without it; a
trial, since it is begun again, and its training goes on from its last state.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from subprocess import Popen
from typing import Protocol

import psutil
from filelock import FileLock, Timeout

from nanogpt2.base.system.errors import TrainingError
from nanogpt2.base.system.files import write_errors
from nanogpt2.base.system.signals import Interrupted, caught_signals
from nanogpt2.experiments.trials.board import Board
from nanogpt2.experiments.trials.copies import PLACE, Base, Copy
from nanogpt2.experiments.trials.dvc import environment, start_experiment
from nanogpt2.experiments.trials.forks import Forks
from nanogpt2.experiments.trials.hopeless import is_hopeless
from nanogpt2.experiments.trials.trial import (
    FAILED,
    FINISHED,
    FOLDER,
    RUNNING,
    STOPPED,
    WAITING,
    Trial,
)

ATTEMPTS = 3  # of a trial that something kills
PATIENCE = 60.0  # seconds in which what is asked to end may save its state
PAUSE = 0.1
SHOWN = 15  # last lines of a trial that failed
BEGIN = "=== dvc exp run"  # the first line of each attempt in a log

EVALUATED = re.compile(
    r"\biter (\d+): train loss \S+, val loss (\S+) \(time: \S+\)(?:.*, (.+) left)?"
)
TRAINED = re.compile(r"best val loss \S+ at iteration")  # all is written, and DVC's turn next
RECORDED = "Updating lock file"
TRAINS = re.compile(r"(?:Running stage|Stage) 'train'")
KILLED = re.compile(r"was killed by SIG|exited with (?:-\d+|1(?:2[89]|3\d|4\d))\b|acquire lock")


class Source(Protocol):
    """Where trials come from."""

    trials: list[Trial]

    def take(self, running: Sequence[Trial], ready: set[str]) -> Trial | None:
        """Return a trial that may run beside those `running`, None where none may now.

        The data of those keys is `ready`.
        """


@dataclass
class Grid:
    """Trials that are all known from the start."""

    trials: list[Trial]

    def take(self, running: Sequence[Trial], ready: set[str]) -> Trial | None:
        """Return the next trial that would not do what another one does at this moment.

        Of those that share a training or data, the first one makes it, and the others take it
        from DVC's cache.
        """
        trained, read = ({getattr(t, key) for t in running} for key in ("train_key", "data_key"))
        for trial in self.trials:
            fresh = trial.train_key not in trained and trial.data_key not in read - ready
            if trial.state == WAITING and fresh:
                return trial
        return None


@dataclass
class Run:
    """A trial under way in a copy; without a process of ours where an earlier sweep began it."""

    trial: Trial
    copy: Copy
    process: Popen[bytes] | None
    began: float = field(default_factory=time.monotonic)
    at: int = 0  # bytes of the log that were read
    last: deque[str] = field(default_factory=lambda: deque(maxlen=SHOWN))
    killed: bool = False
    trained: bool = False  # and not yet recorded
    stopped: bool = False  # as hopeless
    deadline: float = 0.0  # of what was asked to end

    def read(self, ready: set[str]) -> bool:
        """Take in what the trial has printed since; return whether it was evaluated."""
        evaluated = False
        if not self.trial.log.exists():  # it had not begun
            return False
        with self.trial.log.open("rb") as file:
            file.seek(self.at)
            whole, newline, _ = file.read().rpartition(b"\n")
        self.at += len(whole) + len(newline)
        for line in whole.decode("utf-8", "replace").splitlines():
            if line.startswith(BEGIN):
                self.last.clear()
                self.killed = self.trained = False
            self.trained = bool(TRAINED.search(line)) or (self.trained and RECORDED not in line)
            self.last.append(line)
            self.killed |= bool(KILLED.search(line))
            if TRAINS.search(line):
                ready.add(self.trial.data_key)
            if found := EVALUATED.search(line):
                step, loss = int(found[1]), float(found[2])
                self.trial.left = found[3] or ""
                if step:
                    self.trial.losses[step] = loss
                    evaluated = True
        return evaluated


class Runner:
    """Runs what a source gives, as many at a time as there are `places`."""

    def __init__(
        self,
        base: Base,
        needed: Sequence[str],
        places: Sequence[Mapping[str, str]],
        board: Board,
        *,
        stop_hopeless: bool = False,
    ) -> None:
        self.base, self.needed, self.places, self.board = base, needed, places, board
        self.stop_hopeless = stop_hopeless
        self.copies = [Copy(base, number) for number in range(len(places))]
        self.spoiled = set(range(len(places)))  # copies that are made anew
        self.runs: dict[int, Run] = {}
        self.ready: set[str] = set()
        self.trials: list[Trial] = []

    def run(self, source: Source, *, more: int = 0) -> None:
        """Run all trials of `source`, to which `more` may come.

        A trial that fails keeps none of the others. TrainingError where a signal ends this, or
        another one runs.
        """
        self.trials = source.trials
        waiting = sum(trial.state == WAITING for trial in self.trials)
        self.forks = Forks(environment(**self.places[0]), wanted=max(waiting, more) > 1)
        with write_errors(PLACE):
            PLACE.mkdir(parents=True, exist_ok=True)
            FOLDER.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(PLACE / "lock", timeout=0), caught_signals() as interruption:
                self._adopt()
                self._loop(source, interruption.check)
                for copy in self.copies:
                    copy.remove()
        except Timeout as error:
            raise TrainingError(
                "another sweep is under way in this project; wait for it or stop it"
            ) from error
        except Interrupted as signal:
            self.board.say(f"{signal}: waiting for the trials to save their state")
            for run in self.runs.values():
                run.copy.end(PATIENCE)
            raise TrainingError(f"interrupted by {signal}; the same command goes on") from signal
        finally:
            self.board.end()
            self.forks.end()

    def _loop(self, source: Source, check: Callable[[], None]) -> None:
        while True:
            check()
            for number in range(len(self.places)):
                running = [run.trial for run in self.runs.values()]
                if number not in self.runs and (trial := source.take(running, self.ready)):
                    self._begin(number, trial)
            if not self.runs:
                return
            for number, run in list(self.runs.items()):
                if self._has_ended(run):
                    del self.runs[number]
                    self._settle(number, run)
            self.board.refresh(self.trials)
            time.sleep(PAUSE)

    def _adopt(self) -> None:
        """Take over what a sweep that was killed has left: results, and trials that still run.

        Those of another base or sweep are ended.
        """
        older = (int(path.name) for path in PLACE.iterdir() if path.name.isdigit())
        for number in sorted(older):
            copy = Copy(self.base, number)
            name = copy.read_note()
            trial = next((t for t in self.trials if t.name == name and t.state == WAITING), None)
            if trial is not None:
                trial.state, trial.attempts = RUNNING, max(trial.attempts, 1)
                run = Run(trial, copy, None)
                if number < len(self.places):
                    self.runs[number] = run
                    continue
                while not self._has_ended(run):
                    time.sleep(PAUSE)
                self._settle(number, run)
            copy.end(PATIENCE)
            if number >= len(self.places):
                copy.remove()

    def _begin(self, number: int, trial: Trial) -> None:
        copy = self.copies[number]
        copy.prepare(self.needed, anew=number in self.spoiled)
        self.spoiled.discard(number)
        trial.state = RUNNING
        trial.attempts += 1
        copy.write_note(trial.name)
        trial.write()
        with trial.log.open("a", encoding="utf-8") as log:
            log.write(f"{BEGIN} --name {trial.name}: {trial.title}\n")
        at = trial.log.stat().st_size
        process = start_experiment(
            trial.name,
            trial.setting,
            folder=copy.project,
            log=trial.log,
            env=self.places[number],
            python=self.forks.python,
        )
        self.runs[number] = Run(trial, copy, process, at=at)
        self.board.began(trial)

    def _has_ended(self, run: Run) -> bool:
        """Return whether nothing of the trial runs any more; stop it where it is hopeless."""
        if run.read(self.ready) and self.stop_hopeless and is_hopeless(run.trial, self.trials):
            run.stopped = True
            self._ask(run, psutil.Process.terminate)
        if run.process is not None:
            code = run.process.poll()
            if code == 0:
                return True
            if code is None:
                self._insist(run)
                return False
            run.killed |= code < 0
        if not run.copy.processes():
            run.read(self.ready)
            return True
        if run.process is not None and not run.deadline:  # killed, and its training not yet
            self._ask(run, psutil.Process.terminate)
        self._insist(run)
        return False

    def _ask(self, run: Run, ask: Callable[[psutil.Process], object]) -> None:
        run.deadline = run.deadline or time.monotonic() + PATIENCE
        for process in run.copy.processes():
            try:
                ask(process)
            except psutil.Error:
                continue

    def _insist(self, run: Run) -> None:
        if run.deadline and time.monotonic() > run.deadline:
            self._ask(run, psutil.Process.kill)

    def _settle(self, number: int, run: Run) -> None:
        """Write down what became of a trial, and keep its experiment."""
        trial = run.trial
        trial.seconds += time.monotonic() - run.began
        self.ready.add(trial.data_key)
        if run.copy.result(trial.name):
            trial.figures, trial.state = run.copy.take(trial.name), FINISHED
        else:
            self.spoiled.add(number)
            if run.trained:
                run.copy.record("train")
            if run.stopped:
                trial.state = STOPPED
            elif (run.killed or self._is_cut_off(run)) and trial.attempts < ATTEMPTS:
                trial.state = WAITING
            else:
                trial.state = FAILED
        trial.write()
        run.copy.note.unlink(missing_ok=True)
        if trial.state != WAITING:
            self.board.ended(trial, self.trials, list(run.last))

    def _is_cut_off(self, run: Run) -> bool:
        """Return whether the log of a trial whose exit status nobody knows ends without a word."""
        return run.process is None and not any("ERROR" in line for line in run.last)


def failures(trials: Iterable[Trial]) -> list[Trial]:
    """Return the trials that failed."""
    return [trial for trial in trials if trial.state == FAILED]
