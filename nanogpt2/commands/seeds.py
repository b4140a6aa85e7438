"""The command seeds: one setting, or two, with several seeds."""

import click

from nanogpt2.commands.command import shown


@click.command()
@click.option("--n", type=click.IntRange(min=2), default=5, help="Number of seeds: 1 to n.")
@click.option("-S", "--set-param", "settings", metavar="KEY=VALUE", multiple=True, help="A change.")
@click.option("--against", metavar="KEY=VALUE", multiple=True, help="What to compare with.")
@click.option("--split", type=click.Choice(["val", "test"]), default="val", help="Whose loss.")
@click.option("--jobs", type=click.IntRange(min=1), help="Runs side by side.")
@shown
def main(
    n: int, settings: tuple[str, ...], against: tuple[str, ...], split: str, jobs: int | None
) -> None:
    """Train and evaluate params.yaml, with the changes of -S, once for each seed.

    Prints the loss of each seed, mean and spread. With --against, params.yaml with those changes
    is run with the same seeds, and a paired t test says whether the first is better: by the loss,
    or by bits per byte where tokenizers differ. Choose by val; test is for the last report.
    """
    from nanogpt2.experiments.seeds import compare_settings

    compare_settings(settings, against, range(1, n + 1), split=split, show=click.echo, jobs=jobs)
