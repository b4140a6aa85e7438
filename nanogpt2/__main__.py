"""Extra commands for people: `python -m nanogpt2 --help`."""

from pathlib import Path

import click

from nanogpt2.errors import exit_with_one_line


@click.group(context_settings={"show_default": True})
def main() -> None:
    """What nanoGPT2 offers beside its pipeline (`dvc repro`)."""


@main.command()
@click.argument("name")
@click.option("--params", type=Path, default="params.yaml", help="The file to change.")
@exit_with_one_line()
def preset(name: str, params: Path) -> None:
    """Write the values of the preset NAME (nano, small, base) into params.yaml.

    Comments, order and all other keys stay as they are.
    """
    from nanogpt2.config import use_preset

    changes = use_preset(name, params)
    click.echo("\n".join(changes) or f"{params} has the values of {name} already")


ROOT_OPTION = click.option(
    "--root", type=Path, default=".resume", help="Where states of unfinished runs are kept."
)


@main.group(invoke_without_command=True)
@ROOT_OPTION
@click.pass_context
@exit_with_one_line()
def runs(context: click.Context, root: Path) -> None:
    """List the runs that were cut off and can go on; `runs prune` removes them."""
    from nanogpt2.resume import describe_run, list_runs

    context.obj = root
    if context.invoked_subcommand is None:
        found = list_runs(root)
        click.echo("\n".join(map(describe_run, found)) or f"no unfinished runs under {root}")


@runs.command()
@click.argument("names", nargs=-1)
@click.pass_obj
@exit_with_one_line()
def prune(root: Path, names: tuple[str, ...]) -> None:
    """Remove the unfinished runs called NAMES, or all of them; a run under way stays."""
    from nanogpt2.resume import prune_runs

    pruned = prune_runs(root, names)
    size = sum(run.bytes for run in pruned)
    click.echo(f"removed {len(pruned)} unfinished runs, {size / 1e6:.1f} MB")


@main.command()
@click.option("--n", type=click.IntRange(min=2), default=5, help="Number of seeds: 1 to n.")
@click.option("-S", "--set-param", "settings", metavar="KEY=VALUE", multiple=True, help="A change.")
@click.option("--against", metavar="KEY=VALUE", multiple=True, help="What to compare with.")
@click.option("--split", type=click.Choice(["val", "test"]), default="val", help="Whose loss.")
@exit_with_one_line()
def seeds(n: int, settings: tuple[str, ...], against: tuple[str, ...], split: str) -> None:
    """Train and evaluate params.yaml, with the changes of -S, once for each seed.

    Prints the loss of each seed, mean and spread. With --against, params.yaml with those changes
    is run with the same seeds, and a paired t test says whether the first is better. Choose by
    val; test is for the last report.
    """
    from nanogpt2.experiments import compare_settings

    compare_settings(settings, against, range(1, n + 1), split=split, show=click.echo)


if __name__ == "__main__":
    main(prog_name="python -m nanogpt2")
