"""Stage prepare: turn the corpus into token files."""

from pathlib import Path

import click

from nanogpt2.base.system.workers import aside, keep_alone
from stages.shared.command import config_option, done, stage_command


@stage_command
@config_option
@click.option("--out", type=Path, default="data/prepared", help="Folder to write.")
@click.option(
    "--init",
    type=Path,
    default="data/init/tokenizer.json",
    help="Tokenizer of the stage init, for tokenizer: from_init.",
)
@click.option("--figures", type=Path, default="metrics/eval.json", help="Told if not comparable.")
@click.option("--workers", type=click.IntRange(1), help="Processes; all cores for a large text.")
def main(config: str, out: Path, init: Path, figures: Path, workers: int | None) -> None:
    """Read the corpus, split it, and write tokens, tokenizer and dataset.json."""
    keep_alone()
    from nanogpt2.config.config import PREPARE_KEYS, get_config

    settings_read = aside(get_config, config)  # while this process imports
    from nanogpt2.base.system.checksums import read_sealed
    from nanogpt2.text.prepare.describe import describe, moved_splits
    from nanogpt2.text.prepare.prepare import prepare
    from nanogpt2.text.reading.corpus import count_companions
    from nanogpt2.tokens.choice import read_named

    settings = settings_read()
    source, tokenizer = Path(settings.corpus), settings.tokenizer
    description = prepare(
        source,
        out,
        tokenizer=read_sealed(init) if tokenizer == "from_init" else read_named(tokenizer),
        fractions=(settings.val_fraction, settings.test_fraction),
        **{key: settings[key] for key in ("vocab_size", "block_size", *PREPARE_KEYS)},
        workers=workers,
    )
    moved = moved_splits(description, figures)
    click.echo(describe(description, companions=count_companions(source), moved=moved))
    done("of text", description["characters"], "characters", to=out)


if __name__ == "__main__":
    main()
