"""Stage prepare: turn the corpus into token files."""

from pathlib import Path

import click

from stages.shared.command import config_option, stage_command


@stage_command
@config_option
@click.option("--out", type=Path, default="data/prepared", help="Folder to write.")
@click.option(
    "--init",
    type=Path,
    default="data/init/tokenizer.json",
    help="Tokenizer of the stage init, for tokenizer: from_init.",
)
@click.option(
    "--figures", type=Path, default="metrics/eval.json", help="Told of if not comparable."
)
def main(config: str, out: Path, init: Path, figures: Path) -> None:
    """Read the corpus, split it, and write tokens, tokenizer and dataset.json."""
    from nanogpt2.base.checksums import read_sealed
    from nanogpt2.config.config import get_config
    from nanogpt2.prepare.prepare import describe, moved_splits, prepare
    from nanogpt2.text.corpus import count_companions

    settings = get_config(config)
    source = Path(settings.corpus)
    description = prepare(
        source,
        out,
        tokenizer=read_sealed(init) if settings.tokenizer == "from_init" else settings.tokenizer,
        vocab_size=settings.vocab_size,
        fractions=(settings.val_fraction, settings.test_fraction),
        block_size=settings.block_size,
    )
    moved = moved_splits(description, figures)
    click.echo(describe(description, companions=count_companions(source), moved=moved))


if __name__ == "__main__":
    main()
