"""A clone of the project in a temporary folder, with real git and real DVC."""

import compileall
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import warm
from filelock import FileLock
from imports import ROOT

from nanogpt2.base.system.errors import DeviceError
from nanogpt2.base.system.files import sha256
from nanogpt2.config import yaml12
from nanogpt2.decode.kernels import cpu_library as decoding
from nanogpt2.kernels.cpu.operators import compile_operators
from nanogpt2.train.distil.cpu import compile_rows

SMALL_RUN = {
    "corpus": "data/raw",
    "block_size": 16,
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 16,
    "batch_size": 4,
    "max_iters": 8,
    "warmup_iters": 2,
    "eval_interval": 4,
    "eval_iters": 1,
    "checkpoint_interval": 4,
    "device": "cpu",
}
TEXT = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate.\n" * 60
LEFT_OUT = ("metrics/", "plots/", "dvc.lock", "tests/", "benchmarks/", "docs/", "notebooks/")
OUTPUTS = ("checkpoints", "data/prepared", "metrics", "plots", "samples", "dvc.lock")


class Workspace:
    """A git repository with the project's files, a small run in params.yaml and a small text.

    DVC and its stages run in the warm Python.
    """

    def __init__(self, root: Path, params: Mapping[str, object] = SMALL_RUN) -> None:
        self.root, self.env = root, environment(root)
        shutil.copytree(template(), root, symlinks=True)
        self.put(params)
        self.commit("start")

    @staticmethod
    def cold_path() -> str:
        """Return the PATH with which DVC and Python start as they do for people."""
        return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    @classmethod
    def trained(cls, root: Path) -> "Workspace":
        """Return one in which `dvc repro` has run and was committed; repro.txt has what it said."""
        shutil.copytree(once("trained", run_all), root, symlinks=True)
        return cls.at(root, environment(root))

    @classmethod
    def at(cls, root: Path, env: Mapping[str, str]) -> "Workspace":
        """Return the workspace that is at `root` already."""
        workspace = cls.__new__(cls)
        workspace.root, workspace.env = root, dict(env)
        return workspace

    def copy(self, root: Path) -> "Workspace":
        """Return a copy at `root`, with all that DVC keeps."""
        shutil.copytree(self.root, root, symlinks=True)
        return self.at(root, self.env)

    def put(self, values: Mapping[str, object]) -> None:
        """Put `values` into params.yaml."""
        path = self.root / "params.yaml"
        text = yaml12.replace_values(path.read_text(encoding="utf-8"), values)
        for key, usual, few in (("max_new_tokens", 500, 20), ("memorisation_tokens", 300, 40)):
            text = text.replace(f"{key}: {usual}", f"{key}: {few}")
        path.write_text(text, encoding="utf-8")

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.root, env=self.env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def git(self, *options: str) -> str:
        return self.run("git", *options).stdout

    def dvc(self, *options: str) -> str:
        return self.run("dvc", *options).stdout

    def stages_run(self, *options: str) -> list[str]:
        """Run DVC and return the stages that it executed."""
        lines = self.dvc(*options).splitlines()
        return [line.split("'")[1] for line in lines if line.startswith("Running stage")]

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def outputs(self) -> dict[str, str]:
        """Return the SHA-256 of each output file."""
        paths = [path for name in OUTPUTS for path in files_in(self.root / name)]
        return {str(p.relative_to(self.root)): sha256(p.read_bytes()) for p in sorted(paths)}


def environment(root: Path) -> dict[str, str]:
    """Return the environment of DVC in the project at `root`, which has nothing of the user's."""
    settings = warm.folder() / "dvc-settings"
    settings.mkdir(exist_ok=True)
    (settings / "config").write_text("[core]\n    check_update = false\n", encoding="utf-8")
    return os.environ | {
        "PATH": os.pathsep.join([str(Path(warm.executable()).parent), Workspace.cold_path()]),
        "DVC_GLOBAL_CONFIG_DIR": str(settings),
        "DVC_NO_ANALYTICS": "1",
        "CI": "1",  # no sign of life in a pipe after 4 seconds
        "NANOGPT2_FORKS": "0",  # the warm Python forks already
        "DVC_SITE_CACHE_DIR": str(root.parent / "dvc-site"),
        "OMP_NUM_THREADS": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "PYTHONDONTWRITEBYTECODE": "",  # or each stage compiles what it imports
    }


@cache
def once(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder that `make` fills: once, for all workers that run tests."""
    path = warm.folder() / name
    with FileLock(f"{path}.lock"):
        if not path.exists():
            parts = path.with_suffix(".part")
            make(parts)
            parts.rename(path)
    return path


def template() -> Path:
    """Return a repository of the project's files with a small text, of which nothing is committed.

    What no command reads, the record and the results of the last run are left out. What a stage
    imports is compiled.
    """
    return once("template", fill_template)


def fill_template(root: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith(LEFT_OUT) and (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, root / name)
    for package in ("nanogpt2", "stages"):
        compileall.compile_dir(root / package, quiet=1)
    (root / "data/raw").mkdir()
    (root / "data/raw/sonnet.txt").write_text(TEXT, encoding="utf-8")
    for command in (
        ["git", "init", "--quiet"],
        ["git", "config", "user.name", "test"],
        ["git", "config", "user.email", "test@example.org"],
        [warm.executable(), "-m", "dvc", "add", "--quiet", "data/raw"],
    ):
        subprocess.run(command, cwd=root, env=environment(root), check=True)
    compile_once(8)


def compile_once(*head_sizes: int) -> None:
    """Compile what decodes, follows and trains heads of these sizes, or each process would."""
    lock = FileLock(warm.folder() / "compiling.lock")
    with lock, suppress(DeviceError):  # no compiler
        decoding.load()
        compile_rows()
        for head_size in head_sizes:
            compile_operators(head_size)


def run_all(root: Path) -> None:
    workspace = Workspace(root)
    (root / "repro.txt").write_text(workspace.dvc("repro"), encoding="utf-8")
    workspace.commit("first run")


def files_in(path: Path) -> list[Path]:
    """Return `path` itself, or the files in it at any depth, less git's own."""
    if path.is_file():
        return [path]
    return [found for found in path.rglob("*") if found.is_file() and found.name != ".gitignore"]
