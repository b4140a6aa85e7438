"""Seconds that each cell of the quick-start notebook takes, in the Python that runs this.

    python benchmarks/notebook.py
    python benchmarks/notebook.py --set "MAX_ITERS = 3000" --set "DEVICE = 'cpu'" --keep mine.ipynb

`--set` comes after the cell of settings, as if it had been changed. A folder of its own keeps what
the notebook writes, so that it runs as it would anywhere.
"""

import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

from nanogpt2.base.system.files import write_json

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks/Quick_Start_nanoGPT2.ipynb"
KERNEL = "this-python"
ARGUMENTS = ["-m", "ipykernel_launcher", "-f", "{connection_file}"]
LONGEST_SECONDS = 3600  # of a cell


def prepare_kernel(folder: Path) -> None:
    """Make this Python, with this checkout, the kernel `KERNEL` of the processes that we start.

    Kernels and settings of the user's own, which may be another Python's, are not looked at.
    """
    kernel = {"argv": [sys.executable, *ARGUMENTS], "display_name": KERNEL, "language": "python"}
    write_json(folder / "jupyter/kernels" / KERNEL / "kernel.json", kernel)
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(places)
    os.environ["JUPYTER_DATA_DIR"] = str(folder / "jupyter")
    os.environ["IPYTHONDIR"] = str(folder / "ipython")


def change_settings(notebook: Any, assignments: tuple[str, ...]) -> None:
    """Add a cell with `assignments` after the one that is tagged `parameters`."""
    cells = notebook.cells
    at = next(i for i, c in enumerate(cells) if "parameters" in c.metadata.get("tags", []))
    known = re.findall(r"^(\w+) = ", cells[at].source, flags=re.MULTILINE)
    for assignment in assignments:
        name = assignment.partition("=")[0].strip()
        if name not in known:
            raise click.UsageError(f"--set {assignment}: allowed: {', '.join(known)}")
    changed = nbformat.v4.new_code_cell("\n".join(assignments), id="changes")
    cells.insert(at + 1, changed)


def run(notebook: Any, folder: Path, *, done: Callable[[str, float], None]) -> None:
    """Run `notebook` in `folder`; `done` is told the name of each cell of code, and its seconds.

    The kernel is spoken to through files there: no port is open that others could use.
    """
    began: list[float] = []
    client = NotebookClient(
        notebook,
        timeout=LONGEST_SECONDS,
        kernel_name=KERNEL,
        resources={"metadata": {"path": str(folder)}},
        config=Config({"KernelManager": {"transport": "ipc", "ip": str(folder / ".kernel")}}),
        on_cell_execute=lambda cell, cell_index: began.append(time.perf_counter()),
        on_cell_executed=lambda cell, cell_index, execute_reply: done(
            cell.id, time.perf_counter() - began[-1]
        ),
    )
    client.execute()


def cpu_seconds() -> float:
    """Return the processor time of the processes that have ended, of all threads."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@click.command()
@click.option("--set", "changes", multiple=True, help="An assignment, such as MAX_ITERS = 20.")
@click.option("--keep", type=Path, help="Receives the notebook with its outputs.")
def main(changes: tuple[str, ...], keep: Path | None) -> None:
    """Run the notebook, and print the seconds of each cell."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    change_settings(notebook, changes)
    began = time.perf_counter()
    with TemporaryDirectory() as name:
        folder = Path(name, "work")
        folder.mkdir()
        prepare_kernel(Path(name))
        try:
            run(notebook, folder, done=lambda cell, took: click.echo(f"{cell:12} {took:6.1f} s"))
        finally:
            if keep is not None:
                write_json(keep, notebook)
    wall = time.perf_counter() - began
    click.echo(f"{'in all':12} {wall:6.1f} s, {cpu_seconds():.1f} s of the processors")


if __name__ == "__main__":
    main()
