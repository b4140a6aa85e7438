"""Compiled libraries are kept, and a damaged one is made anew before it can end the program."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nanogpt2.base.system.errors import DeviceError
from nanogpt2.decode.kernels import cpu_library
from nanogpt2.device import compiler
from nanogpt2.kernels.cpu import operators as training

SOURCE = "int answer(void) { return ANSWER; }\n"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source, and a cache with its library."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "small.c").write_text(SOURCE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        try:
            load(folder / "small.c")
        except DeviceError as error:
            pytest.skip(str(error))
    return folder


@pytest.fixture
def source(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "small.c"


def load(source: Path, answer: int = 42) -> int:
    """Return what the library says, loaded as by a new process."""
    compiler.load_library.cache_clear()
    found: int = compiler.load_library(source, ANSWER=answer).answer()
    return found


def libraries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache/nanogpt2").iterdir())


def test_a_library_is_kept_for_the_next_run(source: Path, tmp_path: Path) -> None:
    (kept,) = libraries(tmp_path)
    written = kept.stat().st_mtime_ns
    assert load(source) == 42
    assert libraries(tmp_path) == [kept]
    assert kept.stat().st_mtime_ns == written


def test_another_source_or_another_number_is_another_library(source: Path, tmp_path: Path) -> None:
    assert load(source, 7) == 7
    source.write_text(SOURCE.replace("ANSWER;", "ANSWER + 1;"), encoding="utf-8")
    assert load(source) == 43
    assert len(libraries(tmp_path)) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:200] + bytes(len(content) - 200),
        lambda content: b"",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: content + b"\0",
    ],
    ids=["cut short", "zeroed", "empty", "one bit", "longer"],
)
def test_a_damaged_library_is_made_anew(
    source: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    (kept,) = libraries(tmp_path)
    content = kept.read_bytes()
    kept.unlink()  # this process has it loaded
    kept.write_bytes(damage(content))
    assert load(source) == 42
    (kept,) = libraries(tmp_path)
    assert kept.read_bytes() != damage(content)
    assert compiler._checksum(kept.read_bytes()) in kept.name


@pytest.mark.parametrize("exit_status", [0, 1])
def test_a_compiler_that_writes_half_or_fails_leaves_nothing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exit_status: int
) -> None:
    script = tmp_path / "cc"
    script.write_text(
        '#!/bin/sh\ncase "$*" in *-dM*) echo known;; *) while [ "$1" != -o ]; do shift; done;'
        f' echo half > "$2"; exit {exit_status};; esac\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    with pytest.raises(DeviceError, match="does not compile it here"):
        load(source, 9)
    monkeypatch.delenv("CC")
    assert load(source, 9) == 9


@pytest.mark.parametrize("chosen", ["", " ", "cc -g"])
def test_cc_may_be_empty_or_have_options(
    source: Path, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.setenv("CC", chosen)
    assert load(source, 5) == 5


@pytest.mark.parametrize("chosen", ["'cc", "no-such-compiler", "/", "cc --no-such-option"])
def test_a_cc_that_is_no_compiler_is_said_in_a_line(
    source: Path, monkeypatch: pytest.MonkeyPatch, chosen: str
) -> None:
    monkeypatch.setenv("CC", chosen)
    with pytest.raises(DeviceError, match=r"CC: found 'cc, which is no command|does not compile"):
        load(source, 6)


def test_a_cache_that_cannot_be_written_costs_only_the_cache(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = set(tmp_path.iterdir())
    assert load(source) == 42
    assert set(tmp_path.iterdir()) == before  # nothing is left behind


def test_a_user_without_a_name_or_a_home_can_compile(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert load(source) == 42


@pytest.mark.parametrize(
    ("source", "defines"),
    [(training.SOURCE, ["-DHEAD_SIZE=24"]), (cpu_library.SOURCE, [])],
    ids=["training", "decoding"],
)
def test_no_vector_is_wider_than_the_processors(
    source: Path, defines: list[str], tmp_path: Path
) -> None:
    """A wider one is taken apart into single numbers, which made attention ten times as slow."""
    warning = "-Wvector-operation-performance"
    flags = ["-O1", "-S", "-march=native", "-fopenmp", "-fPIC", *defines, warning]
    command = [*shlex.split(os.environ.get("CC") or "cc"), *flags]
    command += [str(source), "-o", str(tmp_path / "kernels.s")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or f"unknown warning option '{warning}'" in done.stderr:
        pytest.skip("needs gcc")
    assert "expanded" not in done.stderr
