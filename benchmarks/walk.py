"""What someone reaches who reads the documents' site alone, as a list of what was clicked and run.

    python benchmarks/walk.py [--site FOLDER]

A headless Chromium without network opens the site (`mkdocs build` makes it), follows the links of
the quick start, and takes each command from its page; the commands run, as they stand but for
places and sizes, in a fresh clone with a small model and text. The list says what each came to.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["NANOGPT2_EVERY_TEST"] = "1"

from browser import chromium  # noqa: E402
from reader import prepare, walk  # noqa: E402
from workspace import SMALL_RUN, TEXT, Workspace  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--site", type=Path, default=ROOT / "site", help="what mkdocs built")
    site = parser.parse_args().site.resolve()
    if not (site / "index.html").is_file():
        parser.error(f"--site: no index.html in {site}; run mkdocs build")
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        small = {key: value for key, value in SMALL_RUN.items() if key != "corpus"}
        project = Workspace(Path(folder) / "project", small)
        project.run("rm", "-r", "data/raw", "data/raw.dvc")
        project.commit("without a text")
        prepare(project, TEXT)
        before = time.monotonic()
        for step in walk(site, browser, project):
            print(f"{time.monotonic() - before:5.0f} s  {step}", flush=True)


if __name__ == "__main__":
    main()
