"""The command report: all runs on one page, or their curves in the terminal; live on request."""

from pathlib import Path

import click

from nanogpt2.base.screen.screen import still
from nanogpt2.commands.command import shown
from nanogpt2.commands.shared.values import PATH, TEXT


@click.command()
@click.option("-o", "--out", type=PATH, default="report.html", help="Page to write.")
@click.option(
    "--rev",
    "revisions",
    type=TEXT,
    metavar="NAME",
    multiple=True,
    help="Also a branch, tag, commit or range.",
)
@click.option(
    "--watch", is_flag=True, help="Serve the page on this machine and keep it up to date."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of --watch; 0 takes any.")
@click.option("--plot", is_flag=True, help="Draw the latest curve in the terminal instead.")
@shown
def main(out: Path, revisions: tuple[str, ...], watch: bool, port: int, plot: bool) -> None:
    """Compare the workspace, HEAD and all of DVC's experiments on one page that needs no network.

    Curves, means over seeds, differences and what changed, loss by position and token, samples,
    memorisation, data, speed, and how to bring each run back. With --watch it follows trainings
    under way, until Ctrl-C; with --plot the terminal does.
    """
    from nanogpt2.experiments.pages.run import plot_curve, serve_page, write_page

    if plot:
        with still():
            plot_curve(watch=watch, show=click.echo, clear=click.clear)
    elif watch:
        with still():
            serve_page(revisions, port, show=click.echo)
    else:
        write_page(out, revisions)
