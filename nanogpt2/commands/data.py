"""The command data: what a corpus holds and what is wrong with it; its card."""

from pathlib import Path

import click

from nanogpt2.commands.command import shown
from nanogpt2.commands.shared.values import PATH


@click.command()
@click.argument("corpus", type=PATH, required=False)
@click.option("--json", "out", type=PATH, metavar="FILE", help="Also write all of it as JSON.")
@click.option("--html", "page", type=PATH, metavar="FILE", help="Also write it as a page.")
@click.option("--params", type=PATH, default="params.yaml", help="Which text, splits and switches.")
@click.option("--prepared", type=PATH, default="data/prepared", help="Prepared data.")
@click.option("--card", type=PATH, metavar="FILE", help="Instead, write a card of prepared data.")
@shown
def main(
    corpus: Path | None,
    out: Path | None,
    page: Path | None,
    params: Path,
    prepared: Path,
    card: Path | None,
) -> None:
    """Say what a text holds and what is wrong with it; CORPUS is a file, or a folder of texts.

    Sources, splits, scripts, characters, tokens, lines and repeated lines, wrong encodings, control
    characters and licence blocks, with file and line, and the switch under `clean:` in params.yaml
    that mends each. Nothing is changed. Without CORPUS it is that of params.yaml.
    """
    from nanogpt2.base.screen.screen import done
    from nanogpt2.text.doctor.run import examine_corpus, write_card

    if card is not None:
        done("a card", to=write_card(card, prepared))
    else:
        click.echo(examine_corpus(corpus, params, prepared, out=out, page=page))
        done("an examination", to=page or out)
