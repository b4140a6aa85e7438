"""Several seeds together: what their ensemble gives, and a student that learns from it.

A student of an ensemble: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network". A
chain, each model from the one before: Furlanello et al. 2018, "Born-Again Neural Networks".
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanogpt2.base.system.errors import ConfigError, TrainingError
from nanogpt2.base.system.repository import check_repository
from nanogpt2.config import yaml12
from nanogpt2.config.config import Config, make_config
from nanogpt2.experiments.ensembles import ensemble_losses
from nanogpt2.experiments.kept import Kept, find_kept, teachers_setting, with_teachers
from nanogpt2.experiments.seeds import PARAMS, check_keys, run_all, seed_trials
from nanogpt2.experiments.significance import describe_interval, describe_runs
from nanogpt2.experiments.trials.copies import Base, read_base
from nanogpt2.experiments.trials.runner import Grid, failures
from nanogpt2.experiments.trials.space import Setting, apply, check_settings
from nanogpt2.experiments.trials.trial import Trial, digest, make_trial

Show = Callable[[str], object]


@dataclass(frozen=True)
class Study:
    """What all runs of a call share: the base, the values of params.yaml and the changes to it."""

    settings: Setting
    student: Setting  # further changes, of what learns from others
    base: Base = field(default_factory=read_base)
    values: Mapping[str, Any] = field(default_factory=lambda: yaml12.read(PARAMS))
    jobs: int | None = None

    @property
    def title(self) -> str:
        """Return the changes in words."""
        return " ".join(self.settings) or "params.yaml as it is"

    @property
    def config(self) -> Config:
        """Return the configuration of the seeds."""
        return make_config(apply(self.values, self.settings), name=str(PARAMS))

    def run(self, trials: Sequence[Trial], base: Base, *, more_follows: bool = False) -> list[Kept]:
        """Run `trials` on `base`, and return what they have left; TrainingError where one fails."""
        run_all(Grid([*trials]), base, self.values, jobs=self.jobs, more_follows=more_follows)
        if failed := failures(trials):
            raise TrainingError(f"{failed[0].name}: failed; the lines above say why")
        return find_kept(self.base, trials)

    def learn_from(
        self, teachers: Sequence[Kept], seed: int, kind: str, *, more_follows: bool = False
    ) -> tuple[Trial, Kept]:
        """Train a model with `teachers`, which the experiment keeps in data/teachers."""
        given = [each.partition("=")[0].strip() for each in self.student]
        own = () if "seed" in given else (f"seed={seed}",)
        setting = (*self.settings, *self.student, *own, teachers_setting(teachers))
        trial = make_trial(f"{kind}-{digest(setting)}", setting, self.values)
        (kept,) = self.run([trial], with_teachers(self.base, teachers), more_follows=more_follows)
        return trial, kept


def study_ensemble(
    settings: Sequence[str],
    seeds: Sequence[int],
    *,
    distil: bool,
    student: Sequence[str],
    show: Show,
    jobs: int | None = None,
) -> None:
    """Run `settings` for each seed; `show` what ensembles of them give.

    Where asked to `distil`, train a student of all of them too. The test split is looked at once,
    at the end.
    """
    study = begin(settings, student, jobs=jobs)
    trials = [*seed_trials(study.settings, seeds, study.values).values()]
    kept = study.run(trials, study.base, more_follows=distil)
    losses = {seed: t.figure("val", "loss") for seed, t in zip(seeds, trials, strict=True)}
    show(describe_runs(f"{study.title}: val loss", losses))
    show(describe_interval([*losses.values()]))
    together = ensemble_losses(kept, study.config, "val")
    show("the mean of their probabilities: val loss")
    for seed, loss in [*zip(seeds, together, strict=True)][1:]:
        show(f"  seeds {seeds[0]} to {seed}: {loss:.4f}")
    pupil = None
    if distil:
        pupil, _ = study.learn_from(kept, seeds[-1] + 1, "student")
        mean = statistics.fmean(losses.values())
        show(describe_student(pupil, mean, together[-1], study.student))
    if study.config.test_fraction:
        mean = statistics.fmean(trial.figure("test", "loss") for trial in trials)
        last = ensemble_losses(kept, study.config, "test")[-1]
        found = [f"mean of the seeds {mean:.4f}", f"of their probabilities {last:.4f}"]
        found += [f"{pupil.name} {pupil.figure('test', 'loss'):.4f}"] if pupil else []
        show(f"test loss: {', '.join(found)}")


def study_chain(
    settings: Sequence[str],
    length: int,
    *,
    ensemble: bool,
    student: Sequence[str],
    show: Show,
    jobs: int | None = None,
) -> None:
    """Train a model, then one from it, and so on to `length` models; `show` the loss of each.

    With `ensemble`, what the mean of all probabilities gives too.
    """
    study = begin(settings, student, jobs=jobs)
    trials = [*seed_trials(study.settings, [1], study.values).values()]
    kept = study.run(trials, study.base, more_follows=True)
    show(f"{study.title}: val loss along the chain")
    show(describe_link(trials))
    for number in range(2, length + 1):
        more = number < length
        trial, left = study.learn_from(kept[-1:], number, f"chain-{number}", more_follows=more)
        trials.append(trial)
        kept.append(left)
        show(describe_link(trials))
    if ensemble:
        together = ensemble_losses(kept, study.config, "val")
        show(f"  the mean of all probabilities: {together[-1]:.4f}")
    if study.config.test_fraction:
        found = [f"{trials[at].name} {trials[at].figure('test', 'loss'):.4f}" for at in (0, -1)]
        if ensemble:
            last = ensemble_losses(kept, study.config, "test")[-1]
            found.append(f"the mean of all probabilities {last:.4f}")
        show(f"test loss: {', '.join(found)}")


def begin(settings: Sequence[str], student: Sequence[str], *, jobs: int | None) -> Study:
    """Return the study, checked before anything runs."""
    check_keys([*settings, *(each for each in student if not _is(each, "seed"))])
    if taught := [each for each in student if _is(each, "teachers")]:
        raise ConfigError(f"found {taught[0]}; allowed: other keys: the seeds are the teachers")
    check_repository(Path())
    study = Study(tuple(settings), tuple(student), jobs=jobs)
    both = [study.settings, (*study.settings, *study.student)]
    check_settings(study.values, both)
    alone, taught_one = (make_trial("checked", each, study.values) for each in both)
    if alone.data_key != taught_one.data_key:
        found = " ".join(study.student)
        raise ConfigError(
            f"found {found}; allowed: keys that change neither text nor tokens: vocab_size,"
            " block_size and what `prepare` reads are as the teachers have them"
        )
    return study


def _is(setting: str, key: str) -> bool:
    return setting.partition("=")[0].strip() == key


def describe_student(student: Trial, mean: float, together: float, changes: Setting) -> str:
    """Return the loss of a student, beside the mean of its teachers' and their ensemble's."""
    loss = student.figure("val", "loss")
    with_ = f" ({' '.join(changes)})" if changes else ""
    return (
        f"{student.name}{with_}: val loss {loss:.4f}\n"
        f"  minus the mean of the seeds: {loss - mean:+.4f}\n"
        f"  minus the mean of their probabilities: {loss - together:+.4f}"
    )


def describe_link(trials: Sequence[Trial]) -> str:
    """Return the loss of the last model of a chain, and what it is against the one before."""
    losses = [trial.figure("val", "loss") for trial in trials[-2:]]
    against = f" ({losses[-1] - losses[0]:+.4f})" if len(losses) > 1 else ""
    return f"  {trials[-1].name}: {losses[-1]:.4f}{against}"
