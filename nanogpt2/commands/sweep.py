"""The command sweep: many settings, side by side, and the best of them."""

from pathlib import Path
from typing import Any

import click

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.commands.command import shown
from nanogpt2.commands.completion import complete_key
from nanogpt2.commands.shared.values import PATH

AT_LEAST_1 = click.IntRange(min=1)


@click.command()
@click.option(
    "-S",
    "--set-param",
    "settings",
    metavar="KEY=VALUES",
    multiple=True,
    shell_complete=complete_key,
    help="a,b,...; range(start,stop,step); log(first,last,count); choice(a,b,...); in a search"
    " uniform(low,high), loguniform(low,high) too.",
)
@click.option("--space", type=PATH, help="A YAML file of keys with such values or lists.")
@click.option("--search", type=AT_LEAST_1, help="Draw so many settings, by what came of others.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, help="Of the search.")
@click.option("--seeds", type=click.IntRange(min=2), help="Run each setting with seeds 1 to N.")
@click.option("--jobs", type=AT_LEAST_1, help="Trials side by side; all GPUs, or cores.")
@click.option("--stop-hopeless", is_flag=True, help="Stop trials that are worse than most.")
@click.option("--dry-run", is_flag=True, help="Only check and list the trials.")
@shown
def main(settings: tuple[str, ...], space: Path | None, seeds: int | None, **options: Any) -> None:
    """Train and evaluate params.yaml with every combination of values, each a DVC experiment.

    Shows the table by validation loss, and how to take the best. Killed at any moment, the same
    command goes on. With --seeds, a paired t test corrected for the number of settings says which
    differ from params.yaml as it is.
    """
    from nanogpt2.experiments.sweep import sweep, sweep_with_seeds

    if not settings and space is None:
        raise click.UsageError("give what to try: -S KEY=VALUES, or --space FILE")
    count, stop = options["search"], options["stop_hopeless"]
    jobs, dry_run = options["jobs"], options["dry_run"]
    if seeds is None:
        sweep(
            settings,
            file=space,
            count=count,
            seed=options["seed"],
            jobs=jobs,
            stop_hopeless=stop,
            dry_run=dry_run,
            show=click.echo,
        )
    elif count or stop:
        raise ConfigError("found --seeds with --search or --stop-hopeless; allowed: one of them")
    else:
        numbers = range(1, seeds + 1)
        sweep_with_seeds(settings, numbers, file=space, jobs=jobs, dry_run=dry_run, show=click.echo)
