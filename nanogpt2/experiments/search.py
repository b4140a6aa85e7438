"""Search: settings drawn one after another by Optuna's sampler, each from what came of the others.

Optuna keeps nothing itself. Its study is made anew for each draw from the trials of this search,
which `logs/sweeps/search-DIGEST.json` lists, so a search that was killed goes on; and draw n
depends on the seed, n and those results alone. What breaks a rule across keys is drawn, counted as
bad, and not run.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from nanogpt2.base.system.extras import import_extra
from nanogpt2.base.system.files import sha256, write_json
from nanogpt2.config.schema import find_errors
from nanogpt2.experiments.seeds import comparable_figure, figures_of
from nanogpt2.experiments.trials.copies import Base
from nanogpt2.experiments.trials.runner import Grid
from nanogpt2.experiments.trials.space import Axis, Setting, Space, apply
from nanogpt2.experiments.trials.trial import (
    FAILED,
    FINISHED,
    FOLDER,
    STOPPED,
    Trial,
    digest,
    make_trial,
)

TRIES = 20  # to draw a setting that is valid and new


class Search:
    """A source of `count` trials in a `space`, over the `values` of params.yaml."""

    def __init__(
        self, space: Space, values: Mapping[str, Any], base: Base, *, count: int, seed: int
    ) -> None:
        self.optuna = import_extra("optuna", extra="sweep")
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        self.space, self.values, self.base = space, values, base
        self.count, self.seed = count, seed
        axes = json.dumps([[repr(axis) for axis in space.axes.values()], seed, base.identity])
        self.file = FOLDER / f"search-{sha256(axes.encode())[:6]}.json"
        self.drawn = self._read()
        self.trials = [self._trial(each) for each in self.drawn if self._is_valid(each)][:count]
        self.exhausted = False

    def take(self, running: Sequence[Trial], ready: set[str]) -> Trial | None:
        """Return a trial that waits, or draw one."""
        if waiting := Grid(self.trials).take(running, ready):
            return waiting
        if self.exhausted or len(self.trials) >= self.count:
            return None
        setting = self._draw()
        if setting is None:
            self.exhausted = True
            return None
        self.trials.append(self._trial(setting))
        self.trials[-1].base = self.base.identity
        return Grid(self.trials).take(running, ready)

    def _read(self) -> list[Setting]:
        with suppress(OSError, ValueError, TypeError):
            return [tuple(each) for each in json.loads(self.file.read_text(encoding="utf-8"))]
        return []

    def _is_valid(self, setting: Setting) -> bool:
        return not find_errors(apply(self.values, setting))

    def _trial(self, setting: Setting) -> Trial:
        return make_trial(name_of(setting), setting, self.values)

    def _draw(self) -> Setting | None:
        """Return a valid setting that is new; None where `TRIES` draws find none."""
        ranges = {key: self._range(axis) for key, axis in self.space.axes.items()}
        for again in range(TRIES):
            study = self._study(ranges, f"{self.seed}:{len(self.drawn)}:{again}")
            drawn = study.ask(ranges).params
            axes = self.space.axes.values()
            setting = tuple(f"{axis.key}={_text(axis, drawn[axis.key])}" for axis in axes)
            if setting in self.drawn:
                continue
            self.drawn.append(setting)
            write_json(self.file, [list(each) for each in self.drawn])
            if self._is_valid(setting):
                return setting
        return None

    def _range(self, axis: Axis) -> Any:
        distributions = self.optuna.distributions
        if not axis.drawn:
            return distributions.CategoricalDistribution(axis.texts)
        if axis.whole:
            return distributions.IntDistribution(round(axis.low), round(axis.high), log=axis.log)
        return distributions.FloatDistribution(axis.low, axis.high, log=axis.log)

    def _study(self, ranges: Mapping[str, Any], key: str) -> Any:
        """Return a study of the trials so far, whose next draw is a function of them and `key`."""
        states = self.optuna.trial.TrialState
        names = {FINISHED: states.COMPLETE, STOPPED: states.PRUNED, FAILED: states.FAIL}
        trials = {trial.setting: trial for trial in self.trials}
        number = int(sha256(key.encode())[:8], 16)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constant_liar is said to be experimental
            sampler = self.optuna.samplers.TPESampler(seed=number, constant_liar=True)
            study = self.optuna.create_study(sampler=sampler, direction="minimize")
            done = [figures_of(t, "val") for t in self.trials if t.state == FINISHED]
            figure = comparable_figure(done) if done else "loss"
            for setting in self.drawn:
                trial, texts = trials.get(setting, Trial("", (), state=STOPPED)), texts_of(setting)
                finished = trial.state == FINISHED
                study.add_trial(
                    self.optuna.trial.create_trial(
                        state=names.get(trial.state, states.RUNNING),
                        value=figures_of(trial, "val")[figure] if finished else None,
                        params={key: _value(ranges[key], texts[key]) for key in ranges},
                        distributions=dict(ranges),
                        intermediate_values=dict(trial.losses),
                    )
                )
        return study


def name_of(setting: Setting) -> str:
    """Return the name of the experiment of a setting that is run once."""
    return f"trial-{digest(setting, 8)}"


def texts_of(setting: Setting) -> dict[str, str]:
    """Return the values of a setting, as they are written, by their keys."""
    return {key: text for key, _, text in (each.partition("=") for each in setting)}


def _text(axis: Axis, value: Any) -> str:
    return axis.show(value) if axis.drawn else str(value)


def _value(distribution: Any, text: str) -> Any:
    """Return what Optuna had drawn: as written, so within its bounds after rounding."""
    if hasattr(distribution, "choices"):
        return text
    kind = int if type(distribution.low) is int else float
    return min(max(kind(text), distribution.low), distribution.high)
