"""What `python -m nanogpt2` offers, and how it says so."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from imports import ROOT

import nanogpt2
from nanogpt2.__main__ import COMMANDS, MAP, main


def test_help_is_a_map_of_all_commands_in_few_lines_and_imports_none_of_them() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "nanogpt2", "--help"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    listed = [
        line.split(maxsplit=1) for line in lines if line.startswith("  ") and "-h" not in line
    ]
    assert [words[0] for words in listed if words[0] in COMMANDS] == [*COMMANDS]
    purposes = [line.removesuffix(":") for line in lines if line[:1].isalpha() and line[-1] == ":"]
    assert purposes == [*MAP, "Options"]
    assert len(lines) == len(COMMANDS) + 2 * len(MAP) + 7  # each command has one line
    assert "nanogpt2" in done.stderr
    assert "torch" not in done.stderr
    assert "nanogpt2.commands" not in done.stderr


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
        ("plann", "Did you mean 'plan'?"),
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
    ("line", "meant"),
    [
        ("generate --promt x", "'--prompt'"),
        ("runs prnue", "'prune'"),
        ("export m --too gguf", "'--to'"),
        ("completion bush", "'bash'"),
    ],
)
def test_so_is_a_mistyped_option_choice_or_command_within(line: str, meant: str) -> None:
    done = CliRunner().invoke(main, line.split())
    assert done.exit_code == 2
    assert meant in done.stderr


@pytest.mark.parametrize(
    "arguments", [[], *([name] for name in COMMANDS), ["runs", "prune"]], ids=str
)
def test_h_is_help(arguments: list[str]) -> None:
    short, long = (CliRunner().invoke(main, [*arguments, flag]) for flag in ("-h", "--help"))
    assert (short.exit_code, short.output) == (0, long.output)


def test_the_version_is_the_librarys() -> None:
    done = CliRunner().invoke(main, ["--version"])
    assert (done.exit_code, done.output) == (0, f"nanogpt2 {nanogpt2.__version__}\n")
