"""Compiling the library's C with the C compiler of the machine, once for each of its kinds."""

import ctypes
import os
import shlex
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

from nanogpt2.base.errors import DeviceError
from nanogpt2.base.files import sha256

HEADER = Path(__file__).with_name("vectors.h")  # which every source includes
FLAGS = "-O3 -std=gnu11 -shared -fPIC -ffp-contract=fast -fno-math-errno"
# Tried in turn: gcc, and clang on Linux; Apple's clang, whose OpenMP is torch's.
NATIVE_FLAGS = (
    "-march=native -mprefer-vector-width=512 -fopenmp",
    "-march=native -fopenmp",
    "-mcpu=native -Xpreprocessor -fopenmp",
)
COMPILE_SECONDS = 60


@cache
def load_library(source: Path, **defines: int) -> ctypes.CDLL:
    """Return `source` compiled with `defines`, from the user's cache where it is there.

    DeviceError where no compiler makes it.
    """
    compiler = shlex.split(os.environ.get("CC") or "cc")
    defined = [f"-D{name}={value}" for name, value in defines.items()]
    content = source.read_bytes() + HEADER.read_bytes()
    for native in NATIVE_FLAGS:
        flags = [*shlex.split(f"{FLAGS} {native}"), *defined]
        # All that the compiler knows of itself and of this processor.
        target = _run([*compiler, *flags, "-E", "-dM", "-x", "c", os.devnull])
        if target is None:
            continue
        name = sha256(repr((target, flags, content, torch.__version__)).encode())[:16]
        path = _cache_folder() / f"kernels-{name}.so"
        if path.exists() or _compile([*compiler, *flags], source, path):
            try:
                return ctypes.CDLL(str(path))
            except OSError:
                continue
    raise DeviceError(f"{name_of(source)}: `{compiler[0]}` does not compile it here")


def name_of(source: Path) -> str:
    """Return what errors call `source`, such as kernels/cpu.c."""
    return f"{source.parent.name}/{source.name}"


def _compile(command: list[str], source: Path, path: Path) -> bool:
    """Compile `source` to `path` with torch's own OpenMP: a second one would have own threads."""
    openmp = sorted(Path(torch.__file__).with_name("lib").glob("lib*omp*.[sd]*"))
    linked = ["-Wl,--as-needed"] * (sys.platform == "linux") + [str(file) for file in openmp]
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    _run([*command, str(source), "-o", str(partial), *linked, "-lm"])
    if partial.exists():
        partial.replace(path)
    return path.exists()


def _run(command: list[str]) -> str | None:
    """Return what `command` prints, or None where it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


@cache
def _cache_folder() -> Path:
    """Return the user's cache of compiled kernels, or a temporary one where it is not writable."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "nanogpt2")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return Path(tempfile.mkdtemp(prefix="nanogpt2-"))
