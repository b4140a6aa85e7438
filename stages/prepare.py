"""Stage prepare: turn the corpus into token files."""

from pathlib import Path

import click

from stages.shared.command import config_option, stage_command


@stage_command
@config_option
@click.option("--out", type=Path, default="data/prepared", help="Folder to write.")
def main(config: str, out: Path) -> None:
    """Read the corpus, split it, and write tokens, tokenizer and dataset.json."""
    from nanogpt2.config.config import get_config
    from nanogpt2.text.prepare import describe, prepare

    settings = get_config(config)
    description = prepare(
        Path(settings.corpus),
        out,
        tokenizer=settings.tokenizer,
        vocab_size=settings.vocab_size,
        fractions=(settings.val_fraction, settings.test_fraction),
    )
    click.echo(describe(description))


if __name__ == "__main__":
    main()
