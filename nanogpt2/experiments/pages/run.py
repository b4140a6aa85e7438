"""What the command `report` does: a page written, a page served, or a curve in the terminal."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nanogpt2.base.screen.screen import done, phase
from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.files import as_file, write_text
from nanogpt2.base.system.words import counted, describe_amount
from nanogpt2.experiments.compare.collect import NONE, collect_runs
from nanogpt2.experiments.pages.library import read_scripts

EVERY = 1.0  # seconds between two looks at what has changed


def write_page(out: Path, revisions: Sequence[str] = ()) -> None:
    """Write the page to `out`.

    Raises DataError where there is no run, ExtraError where the charts' library is missing.
    """
    from nanogpt2.experiments.pages.page import make_page

    as_file(out)
    read_scripts()  # what is missing is said at once
    with phase("collecting runs"):
        runs = collect_runs(revisions)
    with phase("making the page"):
        page = make_page(runs, Path())
    write_text(out, page)
    size = describe_amount(len(page.encode("utf-8")), "B")
    done(f"{counted(len(runs), 'run')}, {size}", to=out)


def serve_page(revisions: Sequence[str], port: int, *, show: Callable[[str], object]) -> None:
    """Serve the page on loopback until Ctrl-C, and keep it up to date."""
    from nanogpt2.experiments.pages.serve import PageServer

    read_scripts()
    with PageServer(revisions, port) as server:
        try:
            show(f"http://127.0.0.1:{server.port}/ follows the runs here; Ctrl-C ends")
            while True:
                time.sleep(EVERY)
                server.look()
        except KeyboardInterrupt:
            show("\nended")


def plot_curve(*, watch: bool, show: Callable[[str], object], clear: Callable[[], object]) -> None:
    """Draw the training under way, or else the last run; with `watch` until Ctrl-C.

    Raises DataError where there is none, ExtraError where the plots' library is missing.
    """
    from nanogpt2.experiments.pages.terminal import draw_run, find_latest

    before = ""
    try:
        while True:
            run = find_latest()
            if run is None and not watch:
                raise DataError(NONE)
            drawn = draw_run(run) if run else "nothing is being trained yet; Ctrl-C ends"
            if drawn != before:
                if watch:
                    clear()
                show(drawn)
                before = drawn
            if not watch:
                return
            time.sleep(EVERY)
    except KeyboardInterrupt:
        show("")
