"""Compiling the library's C with the C compiler of the machine, once for each of its kinds."""

import ctypes
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from nanogpt2.base.screen.screen import phase
from nanogpt2.base.system.errors import DataError, DeviceError
from nanogpt2.base.system.files import sha256, write_bytes

LIBRARY = Path(__file__).parents[1]
HEADER = Path(__file__).with_name("vectors.h")  # which every source includes
FLAGS = "-O3 -std=gnu11 -shared -fPIC -ffp-contract=fast -fno-math-errno"
# Tried in turn: gcc, and clang on Linux; Apple's clang, whose OpenMP is torch's.
NATIVE_FLAGS = (
    "-march=native -mprefer-vector-width=512 -fopenmp",
    "-march=native -fopenmp",
    "-mcpu=native -Xpreprocessor -fopenmp",
)
OPENMP_FLAGS = ("-Xpreprocessor", "-fopenmp")
OPENMP = ("libgomp*.so*", "libiomp*.so*", "libomp*.dylib")  # that of torch, in its folder
COMPILE_SECONDS = 60


@cache
def load_library(source: Path, *, threads: bool = True, **defines: int) -> ctypes.CDLL:
    """Return `source` compiled with `defines`, from the user's cache where it is whole there.

    With `threads` it may use OpenMP, that of torch. DeviceError where no compiler makes it, and on
    Windows, where GCC aligns no vector of AVX on the stack, and a program ends at its first use.
    """
    if sys.platform == "win32":
        raise DeviceError(f"{name_of(source)}: not compiled on Windows")
    compiler = _find_compiler()
    defined = [f"-D{name}={value}" for name, value in defines.items()]
    content = source.read_bytes() + HEADER.read_bytes()
    openmp = _torch_openmp() if threads else []
    for native in NATIVE_FLAGS:
        flags = [*shlex.split(f"{FLAGS} {native}"), *defined]
        if not threads:
            flags = [flag for flag in flags if flag not in OPENMP_FLAGS]
        # All that the compiler knows of itself and of this processor.
        target = _run([*compiler, *flags, "-E", "-dM", "-x", "c", os.devnull])
        if target is None:
            continue
        name = sha256(repr((target, flags, content, openmp)).encode())[:16]
        with _cache_folder() as folder:
            path = _find_whole(folder, name)
            if path is None:
                linked = [*openmp[1:], "-lm"]
                with phase(f"compiling {name_of(source)}"):
                    path = _compile([*compiler, *flags, str(source)], linked, folder, name)
            if path is not None:
                with suppress(OSError):
                    return ctypes.CDLL(str(path))
    raise DeviceError(f"{name_of(source)}: `{compiler[0]}` does not compile it here")


def name_of(source: Path) -> str:
    """Return what errors call `source`: its path in the library, such as kernels/cpu.c."""
    inside = source.is_relative_to(LIBRARY)
    return source.relative_to(LIBRARY if inside else source.parents[1]).as_posix()


def _find_compiler() -> list[str]:
    """Return the command of the C compiler: CC, or cc."""
    chosen = os.environ.get("CC", "")
    try:
        return shlex.split(chosen) or ["cc"]
    except ValueError as error:
        raise DeviceError(f"CC: found {chosen}, which is no command: {error}") from error


def _find_whole(folder: Path, name: str) -> Path | None:
    """Return the library `name` in `folder`, whose file name ends with its checksum.

    A damaged one would end the program at its first use; it is removed.
    """
    for path in sorted(folder.glob(f"kernels-{name}-*.so")):
        with suppress(OSError):
            if path.stem.endswith(_checksum(path.read_bytes())):
                return path
            path.unlink()
    return None


def _checksum(content: bytes) -> str:
    return sha256(content)[:16]


def _torch_openmp() -> list[str]:
    """Return torch's version, and what links its OpenMP: another would have threads of its own."""
    import torch  # slow, and no need of a library without threads

    folder = Path(torch.__file__).with_name("lib")
    openmp = sorted(path for name in OPENMP for path in folder.glob(name))
    if sys.platform == "darwin":  # what it is linked to is looked for there
        how = [f"-Wl,-rpath,{folder}"]
    else:
        how = ["-Wl,--as-needed"]
    return [torch.__version__, *how, *map(str, openmp)]


def _compile(command: list[str], linked: list[str], folder: Path, name: str) -> Path | None:
    """Compile into `folder`; return the library's file, or None where the compiler fails."""
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        made = Path(aside, "made.so")
        done = _run([*command, "-o", str(made), *linked])
        if done is None or not made.exists():
            return None
        content = made.read_bytes()
    path = folder / f"kernels-{name}-{_checksum(content)}.so"
    try:
        write_bytes(path, content)
    except DataError:  # no space left: as good as no compiler
        return None
    return path


def _run(command: list[str]) -> str | None:
    """Return what `command` prints, or None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=COMPILE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace")


@contextmanager
def _cache_folder() -> Iterator[Path]:
    """Give the user's cache of compiled kernels, or a folder for this once where it has none."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "nanogpt2")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError):  # nobody's home is known, or it cannot be written
        with tempfile.TemporaryDirectory(prefix="nanogpt2-") as passing:
            yield Path(passing)
    else:
        yield folder
