"""Stage init: the weights that training starts from, as a model file of ours."""

from pathlib import Path

import click

from stages.shared.command import config_option, done, stage_command


@stage_command
@config_option
@click.option("--model", type=Path, default="data/init/model.pt", help="Model file to write.")
@click.option(
    "--tokenizer", type=Path, default="data/init/tokenizer.json", help="Its tokenizer, to write."
)
def main(config: str, model: Path, tokenizer: Path) -> None:
    """Read what init_from names; for `scratch` both files are empty."""
    from nanogpt2.config.config import get_config
    from nanogpt2.exchange.incoming.init_from import write_start

    done(write_start(get_config(config).init_from, model, tokenizer), to=model)


if __name__ == "__main__":
    main()
