"""The command score: how surprising a text is."""

from pathlib import Path
from typing import Any

import click

from nanogpt2.commands.command import shown
from nanogpt2.commands.model import model_options, open_models
from nanogpt2.commands.shared.values import PATH


@click.command()
@click.argument("file", type=PATH)
@model_options
@click.option("--html", "page", type=PATH, help="Write a page that colours each character.")
@shown
def main(file: Path, page: Path | None, **which: Any) -> None:
    """Say how surprising the text in FILE is: nats a token, bits a byte."""
    from nanogpt2.base.screen.screen import done
    from nanogpt2.base.system import files
    from nanogpt2.evaluate import score
    from nanogpt2.text.reading.plain import read_text

    text = read_text(file)
    loaded, known = open_models(**which)
    scored = score.score_text(loaded.model, known, text)
    click.echo(score.describe_score(scored))
    if page is not None:
        files.write_text(page, score.write_page(scored, known, title=file.name))
    done(f"of {file}", len(scored.tokens), "tokens", to=page)
