"""Replay: the recorded run once more, in a copy of the project, compared byte for byte."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from nanogpt2.base.screen.screen import say, still
from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError, TrainingError
from nanogpt2.base.system.repository import tracked_files
from nanogpt2.base.system.words import describe_seconds
from nanogpt2.experiments.proof.record import (
    DIFFERS,
    FITS,
    Finding,
    describe_path,
    is_described,
    recorded_commands,
    recorded_inputs,
    recorded_outputs,
)

LOG = Path("logs/train.log")  # of the run that is recorded, where it ran here
STDERR = 2


def replay() -> list[Finding]:
    """Run the commands that dvc.lock records in a copy of the project; compare what they write.

    The copy has the files that git knows, as they are now, and the text. Nothing here changes.
    Raises DataError without a clone of the project, TrainingError where a stage fails.
    """
    commands, outputs = recorded_commands(), recorded_outputs()
    say(f"running {', '.join(commands)} in a copy of the project{describe_duration()}")
    with tempfile.TemporaryDirectory(prefix="nanogpt2-replay-") as folder:
        copy = Path(folder)
        copy_project(copy)
        for stage, command in commands.items():
            run_command(stage, command, copy)
        found = {path: describe_path(copy / path) for path in outputs if (copy / path).exists()}
    return [
        Finding(FITS, path, "written again, the same to the byte")
        if path in found and is_described(entry, found[path])
        else Finding(DIFFERS, path, "was written with other bytes than dvc.lock records")
        for path, entry in outputs.items()
    ]


def copy_project(copy: Path) -> None:
    """Copy what git knows of the current folder to `copy`, and what else the stages read: a text.

    What they write is left out: a stage that wrote nothing must not pass.
    """
    read = [Path(path) for path in sorted(recorded_inputs()) if not Path(path).is_absolute()]
    paths = {Path(name) for name in tracked_files()}.union(*([p, *p.rglob("*")] for p in read))
    written = [Path(path) for path in recorded_outputs()]
    with files.write_errors(copy):
        for path in sorted(paths):
            if path.is_file() and not any(path.is_relative_to(each) for each in written):
                (copy / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy / path)


def run_command(stage: str, command: str, folder: Path) -> None:
    """Run a stage's command in `folder` with this Python; its lines go to stderr."""
    words = shlex.split(command)
    if words[:1] != ["python"]:
        raise DataError(f"dvc.lock: {stage}: found the command {command}; allowed: python ...")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    with still():
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=folder, env=environment, stdout=STDERR, check=False
        )
    if done.returncode:
        raise TrainingError(f"{stage}: failed in a copy of the project; the lines above say why")


def describe_duration() -> str:
    """Return how long the training took whose log is here, in words; "" where there is none."""
    log = files.read_text(LOG) if files.exists(LOG) else ""
    times = re.findall(r"\(time: ([0-9.]+)s\)", log)
    return f"; training took {describe_seconds(float(times[-1]))} here" if times else ""
