"""Every stage and command in one design: results on stdout, remarks on stderr, one last line."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import chdir
from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from imports import ROOT

from nanogpt2.__main__ import COMMANDS, STAGES, main
from nanogpt2.base.screen.state import OPTIONS

TEXT = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate.\n" * 30
PARAMS = {
    **{"corpus": "raw", "block_size": 16, "n_layer": 1, "n_head": 2, "n_embd": 16},
    **{"batch_size": 4, "max_iters": 4, "eval_interval": 2, "eval_iters": 1, "device": "cpu"},
    "evaluate": {"memorisation_samples": 2, "memorisation_tokens": 8},
    "sample": {"prompt": "Shall", "num_samples": 2, "max_new_tokens": 8},
}
# Each command in an order in which each finds what it reads: what it is given, how its last line
# goes on after its name, and how stdout begins: "" where it has no result for people to read.
STAGES_RUN = {
    "validate": ("--out valid.json", r"keys, text and device are valid in T -> valid\.json", ""),
    "corpus": ("--out plays", r"[\d,]{9} characters of Shakespeare in T .* -> plays/.*\.txt", ""),
    "init": ("", r"from scratch: new weights in T -> data/init/model\.pt", ""),
    "prepare": ("", r"2,430 characters of text in T .* -> data/prepared", "read 1 file, 2,430 "),
    "train": ("", r"4 iterations in T -> checkpoints/best_model\.pt", "iter 0: train loss "),
    "evaluate": ("", r"\d+ tokens of val and test in T .* -> metrics/eval\.json", "val: loss "),
    "sample": ("", r"2 samples in T -> samples", "Shall"),
}
COMMANDS_RUN = {
    "card": ("--out card.md", r"a model card in T -> card\.md", ""),
    "completion": ("bash", r"bash's completion, for a new shell in T", "_nanogpt2_completion"),
    "data": ("", r"an examination in T", "raw: 1 file"),
    "export": ("w.safetensors --to safetensors", r"a safe.* export in T -> w\.s.*", "safetensors:"),
    "generate": ("--prompt Shall --max-new-tokens 9", r"9 tokens in T \([\d,]+ .*/s\)", "Shall"),
    "preset": ("nano --params p.yaml", r"\d+ changes in T -> p\.yaml", r"[a-z_]+: \S+ -> "),
    "runs": ("", r"0 unfinished runs in T", "no unfinished runs under .resume"),
    "runs prune": ("", r"removed 0 unfinished runs, 0\.0 MB in T", ""),
    "score": ("raw/a.txt", r"2,430 tokens of raw/a\.txt in T .*", "loss "),
    "shards": ("scan --work work", r"scan 1/1 in T -> work", ""),
    "tokenizer": ("--dry-run --seconds 0.01", r"\d tokenizers in T", r"\d tokenizers, each "),
    "verify": ("data/prepared", r"\d+ things in T", "fits "),
}
# Need DVC, or the network, or half a minute, or go on until they are ended.
ELSEWHERE = {"check", "import", "plan", "report", "seeds", "serve", "sweep"}
ALL = {**STAGES_RUN, **COMMANDS_RUN}
TIME = r"\d+\.\d s"


def run(name: str, *options: str) -> Result:
    arguments = [*ALL[name][0].split(), *options]
    if name in STAGES_RUN:
        return CliRunner().invoke(import_module(f"stages.{name}").main, arguments)
    return CliRunner().invoke(main, [*name.split(), *arguments])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a text and parameters."""
    folder = tmp_path_factory.mktemp("screen")
    (folder / "raw").mkdir()
    (folder / "raw/a.txt").write_text(TEXT, encoding="utf-8")
    (folder / "params.yaml").write_text(json.dumps(PARAMS), encoding="utf-8")
    (folder / "data").mkdir()
    (folder / "data/prompt.txt").write_text("Shall", encoding="utf-8")
    return folder


def write_own(project: Path) -> None:
    """Write the file that `preset` changes."""
    (project / "p.yaml").write_bytes((ROOT / "params.yaml").read_bytes())


@pytest.fixture(scope="module")
def shown(project: Path) -> Iterator[dict[str, Result]]:
    """What each of ALL showed, run in their order in `project`."""
    write_own(project)
    with chdir(project), pytest.MonkeyPatch.context() as patch:
        for name in ("CI", "FORCE_COLOR", *OPTIONS):
            patch.delenv(name, raising=False)
        yield {name: run(name) for name in ALL}


def test_the_table_has_every_stage_and_command() -> None:
    assert set(STAGES_RUN) == set(STAGES)
    assert {path.stem for path in (ROOT / "stages").glob("[a-z]*.py")} == set(STAGES)
    assert set(COMMANDS) - {name.split()[0] for name in COMMANDS_RUN} <= ELSEWHERE


def test_each_can_be_quiet_or_tell_more() -> None:
    stages = [import_module(f"stages.{name}").main for name in STAGES]
    commands = [import_module(module).main for module in COMMANDS.values()]
    within = [each for command in commands for each in getattr(command, "commands", {}).values()]
    for command in [*stages, *commands, *within]:
        flags = {flag for option in command.params for flag in option.opts}
        assert flags >= {"-q", "--quiet", "-v", "--verbose", "--no-color"}, command.callback


@pytest.mark.parametrize("name", ALL)
def test_it_ends_with_a_line_of_what_it_did_how_long_and_where(
    name: str, shown: dict[str, Result]
) -> None:
    done = shown[name]
    assert done.exit_code == 0, done.output
    pattern = f"{name}: {ALL[name][1].replace(' in T', f' in {TIME}')}"
    assert re.fullmatch(pattern, done.stderr.splitlines()[-1]), done.stderr


@pytest.mark.parametrize("name", ALL)
def test_results_alone_are_on_stdout_and_nothing_moves_or_has_a_colour(
    name: str, shown: dict[str, Result]
) -> None:
    done, begins = shown[name], ALL[name][2]
    assert re.match(begins or "$", done.stdout), done.stdout
    assert not set("\r\x1b") & set(done.output)


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("corpus", "tokenizer")])
def test_quiet_leaves_results_and_warnings_alone(
    name: str, shown: dict[str, Result], project: Path
) -> None:
    write_own(project)
    with chdir(project):
        done = run(name, "--quiet")
    assert done.exit_code == 0, done.output
    assert all(line.startswith("warning: ") for line in done.stderr.splitlines())
    assert done.stdout == (shown[name].stdout if name != "train" else "")
    assert not set(OPTIONS) & set(os.environ)
