"""The command card: a model card."""

from pathlib import Path

import click

from nanogpt2.commands.command import shown
from nanogpt2.commands.shared.values import PATH, TEXT


@click.command()
@click.option("--checkpoint", type=PATH, default="checkpoints/best_model.pt", help="Model file.")
@click.option("--export", type=PATH, metavar="FOLDER", help="Its export; the card goes there.")
@click.option("--out", type=PATH, metavar="FILE", help="File to write.  [default: print it]")
@click.option("--license", "licence", type=TEXT, metavar="ID", help="The model's licence: mit, ...")
@click.option("--name", type=TEXT, help="Title.  [default: the folder's name]")
@shown
def main(
    checkpoint: Path, export: Path | None, out: Path | None, licence: str | None, name: str | None
) -> None:
    """Write a model card in Hugging Face's form.

    It tells the training data and its hashes, figures (means and intervals where `seeds` was run),
    what samples copy, samples, parameters, and how to reproduce it. What does not belong to the
    checkpoint by its origin and dvc.lock is left out, and the card says so.
    """
    from nanogpt2.base.screen.screen import done
    from nanogpt2.experiments.proof.card import make_card
    from nanogpt2.experiments.proof.facts import gather, write_card

    title = name or (export or Path()).resolve().name
    facts = gather(checkpoint, name=title, licence=licence, export=export)
    if export is not None and out is None:
        out = export / "README.md"
    if out is None:
        click.echo(make_card(facts), nl=False)
    else:
        write_card(out, facts)
        done("a model card", to=out)
