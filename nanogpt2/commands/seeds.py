"""The command seeds: one setting, or two, with several seeds; their ensemble, and a student."""

from typing import Any

import click

from nanogpt2.commands.command import shown
from nanogpt2.commands.completion import complete_key

SETTING: dict[str, Any] = {
    "metavar": "KEY=VALUE",
    "multiple": True,
    "shell_complete": complete_key,
}


@click.command()
@click.option("--n", type=click.IntRange(min=2), default=5, help="Number of seeds: 1 to n.")
@click.option("-S", "--set-param", "settings", **SETTING, help="A change.")
@click.option("--against", **SETTING, help="What to compare with.")
@click.option("--split", type=click.Choice(["val", "test"]), default="val", help="Whose loss.")
@click.option("--jobs", type=click.IntRange(min=1), help="Runs side by side.")
@click.option("--ensemble", is_flag=True, help="Say what the mean of their probabilities gives.")
@click.option("--distil", is_flag=True, help="As --ensemble, and train one student of all seeds.")
@click.option("--chain", is_flag=True, help="Train each model from the one before, n in all.")
@click.option("--student", **SETTING, help="A change, of what learns from others.")
@shown
def main(
    n: int,
    settings: tuple[str, ...],
    against: tuple[str, ...],
    split: str,
    jobs: int | None,
    **together: Any,
) -> None:
    """Train and evaluate params.yaml, with the changes of -S, once for each seed.

    Prints the loss of each seed, mean and spread. With --against, params.yaml with those changes
    is run with the same seeds, and a paired t test says whether the first is better: by the loss,
    or by bits per byte where tokenizers differ. Choose by val; test is for the last report.

    --ensemble, --distil and --chain go on from there; each model is an experiment of DVC.
    """
    ensemble, distil, chain, student = (
        together[name] for name in ("ensemble", "distil", "chain", "student")
    )
    if student and not (distil or chain):
        raise click.UsageError("--student is of what --distil or --chain trains")
    if distil and chain:
        raise click.UsageError("give one of --distil and --chain")
    if not (ensemble or distil or chain):
        from nanogpt2.experiments.seeds import compare_settings

        seeds = range(1, n + 1)
        compare_settings(settings, against, seeds, split=split, show=click.echo, jobs=jobs)
        return
    if against or split != "val":
        raise click.UsageError("--against and --split go without --ensemble, --distil and --chain")
    from nanogpt2.experiments.students import study_chain, study_ensemble

    options = {"student": student, "show": click.echo, "jobs": jobs}
    if chain:
        study_chain(settings, n, ensemble=ensemble, **options)
    else:
        study_ensemble(settings, range(1, n + 1), distil=distil, **options)
