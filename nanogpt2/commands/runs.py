"""The command runs: what is kept of runs that were cut off."""

from pathlib import Path

import click

from nanogpt2.base.screen.screen import done
from nanogpt2.commands.command import shown
from nanogpt2.commands.shared.values import PATH, STATES, TEXT


@click.group(invoke_without_command=True)
@click.option("--root", type=PATH, default=STATES, help="Where states of unfinished runs are kept.")
@click.pass_context
@shown
def main(context: click.Context, root: Path) -> None:
    """List the runs that were cut off; the same command goes on. `runs prune` removes them."""
    from nanogpt2.base.system.words import counted
    from nanogpt2.commands.shared.unfinished import describe_run, list_runs

    context.obj = root
    if context.invoked_subcommand is None:
        found = list_runs(root)
        click.echo("\n".join(map(describe_run, found)) or f"no unfinished runs under {root}")
        done(counted(len(found), "unfinished run"))


@main.command()
@click.argument("names", type=TEXT, nargs=-1)
@click.pass_obj
@shown
def prune(root: Path, names: tuple[str, ...]) -> None:
    """Remove the unfinished runs called NAMES, or all of them; a run under way stays."""
    from nanogpt2.commands.shared.unfinished import describe_pruned, prune_runs

    done(describe_pruned(prune_runs(root, names)))
