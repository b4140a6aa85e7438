"""The command tokenizer: which tokenizer suits the text, and into params.yaml with it."""

from pathlib import Path

import click

from nanogpt2.commands.command import shown
from nanogpt2.commands.shared.values import MONTH, PATH, number


@click.command()
@click.option(
    "--seconds",
    type=number(exclusiveMinimum=0, maximum=MONTH),
    default=60,
    help="For each, trained.",
)
@click.option("--dry-run", is_flag=True, help="Leave params.yaml as it is.")
@click.option("--params", type=PATH, default="params.yaml", help="The file to read and change.")
@shown
def main(seconds: float, dry_run: bool, params: Path) -> None:
    """Compare char, byte and bpe of 512 to 8,192 tokens on the text of params.yaml.

    A model of params.yaml is trained with each for the same seconds; the one with the fewest bits
    per byte of validation text is written into params.yaml. The first steps, in which kernels are
    compiled, are not timed.
    """
    from nanogpt2.experiments.candidates import compare_tokenizers

    compare_tokenizers(params, seconds=seconds, write=not dry_run, show=click.echo)
