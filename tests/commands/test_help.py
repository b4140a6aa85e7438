"""What `python -m nanogpt2` offers, and how it says so."""

import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from imports import ROOT

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
