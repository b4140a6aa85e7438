"""How long the report of many experiments takes, and how long a browser takes to open it.

    python benchmarks/report.py
    python benchmarks/report.py --experiments 200 --screenshots docs

A repository with as many experiments, in the form that DVC gives them, is made from the recorded
run: settings of five seeds each, 100 evaluations, five samples of 500 characters. The command is
timed as a process, DVC's own table of them too; then a headless Chromium that was just started
opens the page, until its first chart is drawn and until all is.
"""

import argparse
import base64
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from browser import Browser, chromium  # noqa: E402
from kept import make_project, many_experiments  # noqa: E402

ROUNDS = 5


def seconds(project: Path, *command: str) -> float:
    """Return how long a command of Python takes in `project`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *command], cwd=project, check=True, capture_output=True)
    return time.perf_counter() - began


def open_page(page: Path) -> tuple[float, float]:
    """Return the seconds to the first chart, and to all of them, in a browser just started."""
    with chromium() as browser:
        browser.open(page.as_uri())
        browser.wait("window.report?.drawn")
        first, last = browser.run("[report.ready, report.drawn]")
    return first / 1000, last / 1000


def screenshot(browser: Browser, page: Path, out: Path, *, width: int, height: int) -> None:
    """Write a picture of the top of `page` in a window of this size."""
    browser.open(page.as_uri(), width=width, height=height)
    browser.wait("window.report?.drawn")
    time.sleep(0.5)
    out.write_bytes(base64.b64decode(browser.call("Page.captureScreenshot")["data"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=50)
    parser.add_argument("--screenshots", type=Path, help="Folder for pictures at two widths.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder, "project")
        make_project(project, many_experiments(options.experiments))
        page = project / "report.html"
        report = [seconds(project, "-m", "nanogpt2", "report") for _ in range(ROUNDS)]
        table = [seconds(project, "-m", "dvc", "exp", "show", "--json") for _ in range(2)]
        opened = [open_page(page) for _ in range(ROUNDS)]
        first, last = (statistics.median(column) for column in zip(*opened, strict=True))
        print(f"{options.experiments} experiments: {page.stat().st_size / 1e6:.1f} MB")
        print(f"report: {statistics.median(report):.1f} s; dvc exp show --json: {min(table):.1f} s")
        print(f"opened: first chart after {first:.1f} s, all after {last:.1f} s")
        if options.screenshots:
            with chromium() as browser:
                for width, height in ((1280, 1000), (390, 844)):
                    out = options.screenshots / f"report-{width}.png"
                    screenshot(browser, page, out, width=width, height=height)


if __name__ == "__main__":
    main()
