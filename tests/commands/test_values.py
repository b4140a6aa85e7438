"""What every option of every command refuses, by the type of its value."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nanogpt2.__main__ import COMMANDS, main


def all_parameters(
    command: click.Command = main, name: str = ""
) -> Iterator[tuple[str, click.Parameter]]:
    """Yield each option and argument of `command` and its own commands, with a name."""
    for param in command.params:
        yield f"{name} {param.opts[0]}".strip(), param
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for each in command.list_commands(context):
                found = command.get_command(context, each)
                assert found is not None
                yield from all_parameters(found, f"{name} {each}".strip())


PARAMETERS = dict(all_parameters())
PATHS = [name for name, param in PARAMETERS.items() if param.type.name == "path"]
FLOATS = [name for name, param in PARAMETERS.items() if "float" in param.type.name]
# Of a list of what is allowed, or of a form of its own, and refused by that.
LISTED = (
    *("--device", "--window", "--stop", "--shard"),
    *("-S", "--against", "--student", "preset name"),
)
ANY = ("--prompt", "serve --checkpoint")  # no prompt is one; a model without a file is named
TEXTS = [
    name
    for name, param in PARAMETERS.items()
    if param.type.name == "text" and not name.endswith((*LISTED, *ANY))
]


def test_the_parameters_of_all_commands_are_found() -> None:
    assert {name.split()[0] for name in PARAMETERS} >= set(COMMANDS)
    assert {"runs --root", "score file", "sweep --space", "generate --checkpoint"} <= set(PATHS)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [(name, "a path") for name in PATHS] + [(name, "a text, not empty") for name in TEXTS],
)
def test_no_value_is_empty_but_where_that_means_something(name: str, allowed: str) -> None:
    param = PARAMETERS[name]
    for value in ("", " "):
        with pytest.raises(click.BadParameter, match=f"allowed: {allowed}"):
            param.type.convert(value, param, None)


def test_no_path_goes_round_the_type_that_refuses_what_is_empty() -> None:
    kinds = {param.type.name for param in PARAMETERS.values()}
    assert not kinds & {"Path", "file", "directory", "filename"}


@pytest.mark.parametrize(
    "line", ["check --base", "import", "runs prune", "score text.txt --run", "runs --root"]
)
def test_a_value_that_is_empty_is_a_usage_error(line: str) -> None:
    done = CliRunner().invoke(main, [*line.split(), ""])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "found ''; allowed: a " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", FLOATS)
def test_no_number_is_other_than_finite(name: str) -> None:
    param = PARAMETERS[name]
    for value in ("nan", "inf", "-inf", "1e999"):
        with pytest.raises(click.BadParameter, match=f"found {value}; allowed: a finite number"):
            param.type.convert(value, param, None)


def test_the_numbers_of_all_commands_are_found() -> None:
    known = {"plan --hours", "tokenizer --seconds", "serve --max-seconds", "generate --min-p"}
    assert known <= set(FLOATS)


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("plan --minutes 1e9", "above 0, at most 43200"),
        ("plan --hours 721", "above 0, at most 720"),
        ("plan --quality 0", "above 0"),
        ("tokenizer --seconds -1", "above 0, at most 2592000"),
        ("serve --max-seconds 0", "at least 0.1, at most 2592000"),
    ],
)
def test_a_number_out_of_its_range_is_told_the_range(line: str, allowed: str) -> None:
    done = CliRunner().invoke(main, line.split())
    assert done.exit_code == 2
    found = f"found {line.split()[-1]}; allowed: a finite number, {allowed}\n"
    assert done.stderr.endswith(found), done.stderr


@pytest.mark.parametrize("command", ["generate", "score text.txt", "export m.gguf"])
@pytest.mark.parametrize("checkpoint", ["", ".", "/"])
def test_a_checkpoint_without_a_name_is_refused_in_a_line(command: str, checkpoint: str) -> None:
    Path("text.txt").write_text("text", encoding="utf-8")
    done = CliRunner().invoke(main, [*command.split(), "--checkpoint", checkpoint])
    assert done.exit_code == (1 if checkpoint else 2), done.exception
    why = "no config.json of a model, and no whole state of a run" if checkpoint else "found ''"
    assert why in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("checkpoint", ["", ".", "/", "a=", "a=,", "a=."])
def test_so_is_a_checkpoint_to_serve(checkpoint: str) -> None:
    done = CliRunner().invoke(main, ["serve", "--port", "0", "--checkpoint", checkpoint])
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1), done.exception
