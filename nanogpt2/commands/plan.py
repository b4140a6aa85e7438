"""The command plan: a text and a time become params.yaml."""

from pathlib import Path

import click

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.commands.command import shown
from nanogpt2.commands.shared.values import MONTH, PATH, number


def time(seconds: int) -> "click.ParamType[float]":
    """Return the type of a time in units of so many `seconds`."""
    return number(exclusiveMinimum=0, maximum=MONTH // seconds)


@click.command()
@click.option("--minutes", type=time(60), help="Of training; 10 unless another option says.")
@click.option("--hours", type=time(3600), help="Of training, at most 720.")
@click.option(
    "--quality",
    type=number(exclusiveMinimum=0),
    help="A loss in nats a character, as soon as can be.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), help="To train on.")
@click.option(
    "--rehearse",
    type=time(60),
    default=2,
    show_default=True,
    help="Minutes that a rehearsal takes at most: with half of the run's, the loss is surer.",
)
@click.option("--dry-run", is_flag=True, help="Leave params.yaml as it is.")
@click.option("--params", type=PATH, default="params.yaml", help="The file to read and change.")
@shown
def main(
    minutes: float | None,
    hours: float | None,
    quality: float | None,
    device: str | None,
    rehearse: float,
    dry_run: bool,
    params: Path,
) -> None:
    """Choose model, tokenizer, batches, steps and dropout for the text and the time there is.

    Reads the text of params.yaml, trains a small model on it for some seconds, times this machine,
    and writes what a law, fitted to hundreds of runs, says is best; with the loss, time and
    memory to expect, and why.
    """
    from nanogpt2.experiments.plan.plan import plan

    if sum(each is not None for each in (minutes, hours, quality)) > 1:
        raise ConfigError("--minutes, --hours and --quality: give one of them")
    seconds = hours * 3600 if hours else (minutes or 10) * 60
    plan(
        params,
        seconds=None if quality else seconds,
        loss=quality,
        device=device,
        rehearsing=60 * rehearse,
        write=not dry_run,
        show=click.echo,
    )
