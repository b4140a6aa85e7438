"""What `python -m nanogpt2` offers, and how it says so."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from imports import ROOT

import nanogpt2
from nanogpt2.__main__ import COMMANDS, main


def test_help_lists_each_command_with_a_line_and_starts_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "nanogpt2", "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    listed = done.stdout.partition("Commands:\n")[2].splitlines()
    lines = [line.split(maxsplit=1) for line in listed]
    assert [name for name, _ in lines] == sorted(COMMANDS)
    assert "nanogpt2" in done.stderr
    assert "torch" not in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself_under_its_own_name(name: str) -> None:
    done = CliRunner().invoke(main, [name, "--help"])
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: main {name} [OPTIONS]")


def test_a_command_that_is_not_there_is_a_usage_error() -> None:
    done = CliRunner().invoke(main, ["generat"])
    assert done.exit_code == 2
    assert "No such command 'generat'" in done.stderr
    assert "Did you mean 'generate'?" in done.stderr


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("gen", "Did you mean 'generate'?"),
        ("GENERATE", "Did you mean 'generate'?"),
        ("scroe", "Did you mean 'score'?"),
        ("seed", "Did you mean 'seeds'?"),
        ("train", "That is a stage: dvc repro train, or python -m stages.train"),
        ("xyz", f"There are: {', '.join(sorted(COMMANDS))}."),
    ],
)
def test_a_mistyped_command_is_told_what_is_like_it(name: str, answer: str) -> None:
    done = CliRunner().invoke(main, [name])
    assert done.exit_code == 2
    assert answer in done.stderr


@pytest.mark.parametrize(
    "arguments", [[], *([name] for name in COMMANDS), ["runs", "prune"]], ids=str
)
def test_h_is_help(arguments: list[str]) -> None:
    short, long = (CliRunner().invoke(main, [*arguments, flag]) for flag in ("-h", "--help"))
    assert (short.exit_code, short.output) == (0, long.output)


def test_the_version_is_the_librarys() -> None:
    done = CliRunner().invoke(main, ["--version"])
    assert (done.exit_code, done.output) == (0, f"nanogpt2 {nanogpt2.__version__}\n")
