"""The project, for benchmarks that start its commands in other folders."""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def environment(root: Path = ROOT) -> dict[str, str]:
    """Return that of a process which imports the library at `root`, and all else as this one.

    Commands such as `python` and `dvc` are those of this Python.
    """
    paths = [str(root), os.environ.get("PYTHONPATH", "")]
    commands = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PATH": os.pathsep.join(filter(None, commands)),
    }
