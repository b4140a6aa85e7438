"""The command preset: a preset's values into params.yaml."""

from pathlib import Path

import click

from nanogpt2.commands.command import shown
from nanogpt2.commands.completion import complete_preset
from nanogpt2.commands.shared.values import PATH


@click.command()
@click.argument("name", shell_complete=complete_preset)
@click.option("--params", type=PATH, default="params.yaml", help="The file to change.")
@shown
def main(name: str, params: Path) -> None:
    """Write the values of the preset NAME (nano, small, base, finetune) into params.yaml.

    Comments, order and all other keys stay as they are.
    """
    from nanogpt2.base.screen.screen import done
    from nanogpt2.base.system.words import counted
    from nanogpt2.config.config import use_preset

    changes = use_preset(name, params)
    click.echo("\n".join(changes) or f"{params} has the values of {name} already")
    done(counted(len(changes), "change"), to=params)
