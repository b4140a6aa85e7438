"""The key `teachers`: its paths, checked before a run without torch."""

import os
from pathlib import Path

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config.config import Config

FOLDER = Path("data/teachers")  # DVC sees each change in it; a dep cannot depend on a key


def check_paths(config: Config, *, in_pipeline: bool = False) -> None:
    """Raise ConfigError with a line for each of `teachers` that a run cannot have.

    With `in_pipeline` a path outside of `FOLDER`, whose changes DVC would not see, is refused.
    """
    lines = []
    for teacher in config.teachers:
        if in_pipeline and FOLDER not in Path(os.path.normpath(teacher)).parents:
            lines.append(
                f"teachers: found {teacher}; allowed: a file in {FOLDER} in the pipeline, which"
                " sees changes there (it is free when a stage is run by hand)"
            )
        elif not Path(teacher).is_file():
            there = "is a folder, not a model file" if files.exists(teacher) else "no such file"
            lines.append(f"teachers: {teacher}: {there}")
    if lines:
        raise ConfigError("\n".join(lines))
