"""The command import: a model of the Hugging Face hub, to fine-tune or to sample from."""

from pathlib import Path

import click

from nanogpt2.commands.command import shown
from nanogpt2.commands.shared.values import PATH, TEXT


@click.command()
@click.argument("name", type=TEXT)
@click.option("--to", type=PATH, help="Folder to make; by default the last part of NAME.")
@click.option("--revision", type=TEXT, help="A branch, tag or commit of the hub's repository.")
@shown
def main(name: str, to: Path | None, revision: str | None) -> None:
    """Download the model NAME, such as gpt2, into a folder that init_from and --checkpoint take."""
    from nanogpt2.base.screen.screen import done
    from nanogpt2.exchange.incoming.hub import download

    folder = to or Path(Path(name).name)
    click.echo(download(name, folder, revision=revision))
    done(name, to=folder)
    click.echo(
        f"fine-tune it: dvc add {folder} && dvc exp run -S init_from={folder}"
        " -S tokenizer=from_init\n"
        f"sample from it: python -m nanogpt2 generate --checkpoint {folder}"
    )
