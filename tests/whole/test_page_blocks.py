"""Each command and block of the documents is run: here, by a test that is named, or for a reason.

A reader follows a page in a project of a small run, from its first block to its last. Where
another test runs a command with each of its steps looked at, and it takes long, it is only parsed
here, but for `make test-all`.
"""

import re
import shlex
import subprocess
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import click
import pytest
import warm
from documents import (
    DOCUMENTS,
    ELSEWHERE,
    NOT_RUN,
    SHELL,
    Block,
    blocks,
    name,
    reason,
    smaller,
)
from every import EVERY
from imports import ROOT
from workspace import SMALL_RUN, Workspace

from nanogpt2.config import yaml12
from nanogpt2.config.config import make_config
from nanogpt2.experiments.gate.thresholds import parse_thresholds
from nanogpt2.experiments.trials.space import apply, read_space

# Pages of which another test takes each block.
OTHERS = {
    "docs/sharing.md": "tests/whole/test_sharing.py",
    "docs/serving.md": "tests/serve/test_documented.py",
    "docs/start.md": "tests/whole/test_site.py",
}
COPIES = "cp data/raw/* my-novel.txt; cp data/raw/* my-text.txt; cp params.yaml preset.yaml;"
BEFORE = {
    "README.md": "mkdir my-novel; cp my-*.txt my-novel; cp checkpoints/best_model.pt my_model.pt",
    "docs/ci.md": "git tag v1; git update-ref refs/remotes/origin/main HEAD",
    "docs/distil.md": "for n in one two student; do cp my.yaml $n.yaml; done;"
    " echo 'checkpoint_dir: runs/one' >> one.yaml; echo 'checkpoint_dir: runs/two' >> two.yaml",
    "docs/ensembles.md": "for n in one two; do cp checkpoints/best_model.pt $n.pt; done",
    "docs/report.md": "git tag v1.0; git branch --move main;"
    " for n in 1 2 3 4 5; do git commit --quiet --allow-empty --message $n; done",
    "docs/sampling.md": "echo Shall > prompts.txt",
    "docs/training.md": "echo 'checkpoint_dir: mine/checkpoints' >> my.yaml",
}
BEFORE_PYTHON = {
    "docs/finetuning.md": """
from nanogpt2 import get_config
from nanogpt2.tokens.dataset import load_split
from pathlib import Path
few = dict(max_iters=2, eval_iters=1, batch_size=2, device="cpu", block_size=16)
train_dataset, val_dataset = (load_split(Path("data/prepared"), n, 16) for n in ("train", "val"))
"""
}
# Pages whose Python needs what their commands make, whatever other pages have run.
FOLLOWED = {"docs/export.md", "docs/finetuning.md", "docs/scaling.md"}
AROUND = "noise: ci/noise.json\nchance: 0.01\nmetrics:\n  metrics/eval.json:\n{}"
MY = {key: value for key, value in SMALL_RUN.items() if key != "corpus"} | {"corpus": "data/raw"}


def commands_of(block: Block) -> list[str]:
    """Return the commands of a block, which a block of output has behind a `$`."""
    if block.language in SHELL:
        return block.commands()
    return re.findall(r"(?m)^\$ (.+)$", block.text) if not block.language else []


PAGES = [page for page in map(name, DOCUMENTS) if page not in OTHERS]
FIRST = ["docs/start.md", *sorted(PAGES, key=lambda page: page == "README.md")]
COMMANDS = {
    command: page
    for page in reversed(FIRST)
    for block in blocks(page)
    for command in commands_of(block)
}  # and the first page that has it, where it is run; README.md shows what others explain
RUN = {page for command, page in COMMANDS.items() if page in PAGES and not reason(command)}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A project that has trained, with what pages take for granted."""
    project = Workspace.trained(tmp_path_factory.mktemp("reader") / "project")
    (project.root / "my.yaml").write_text(to_yaml(MY), encoding="utf-8")
    project.run("sh", "-ec", COPIES)
    return project


@pytest.mark.parametrize("page", sorted(RUN, key=lambda page: (page == "docs/distil.md", page)))
def test_a_reader_can_follow_the_page(page: str, project: Workspace, tmp_path: Path) -> None:
    if EVERY:  # experiments change what is there; else only the last page, distil, does
        project = project.copy(tmp_path / "project")
    project.env["HOME"] = str(project.root)
    project.run("sh", "-ec", BEFORE.get(page, ":"))
    for block in blocks(page):
        if block.language == "python" and page in FOLLOWED and not reason(block.text):
            code = BEFORE_PYTHON.get(page, "") + smaller(block.text)
            (project.root / "block.py").write_text(code, encoding="utf-8")
            project.run(warm.executable(), "block.py")
        elif block.language == "yaml" and page == "docs/distil.md":
            student = MY | {"seed": 3} | yaml12.parse(block.text, name=page)
            (project.root / "student.yaml").write_text(to_yaml(student), encoding="utf-8")
        for command in commands_of(block):
            if page in (COMMANDS[command], *FOLLOWED) and not reason(command):
                done = subprocess.run(
                    ["sh", "-ec", smaller(command)], cwd=project.root, env=project.env,
                    stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                )  # fmt: skip
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def to_yaml(values: dict[str, object]) -> str:
    return "".join(f"{key}: {yaml12.show(value)}\n" for key, value in values.items())


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.startswith("python -m ")])
def test_a_command_has_these_options_and_takes_these_values(command: str) -> None:
    _, _, module, *words = shlex.split(command)
    main = import_module("nanogpt2.__main__" if module == "nanogpt2" else module).main
    parent = None
    if isinstance(main, click.Group):
        parent = click.Context(main, **main.context_settings)
        main, words = main.get_command(parent, words[0]), words[1:]
    with main.make_context(module, words, parent=parent) as context:
        assert context.command is main


@pytest.mark.parametrize("command", [one for one in COMMANDS if one.startswith("dvc exp run ")])
def test_an_experiment_sets_what_there_is(command: str) -> None:
    words = shlex.split(command)
    settings = [after for word, after in pairwise(words) if word == "-S"]
    assert settings
    params = yaml12.read(ROOT / "params.yaml")
    make_config(apply(params, settings), name=command)


@pytest.mark.parametrize("page", list(map(name, DOCUMENTS)))
def test_blocks_of_yaml_are_valid_and_those_of_no_language_are_output(page: str) -> None:
    for block in blocks(page):
        assert block.language in {"", "bash", "mermaid", "python", "sh", "yaml"}, block
        if block.language == "":
            assert not re.search(r"(?m)^(python3? |dvc |git |import |from \w+ import)", block.text)
        elif block.language == "yaml" and page == "docs/ci.md":
            whole = block.text if "metrics:" in block.text else AROUND.format(block.text)
            parse_thresholds(whole, name=page)
        elif block.language == "yaml" and page == "docs/experiments.md":
            Path("space.yaml").write_text(block.text, encoding="utf-8")
            assert read_space((), Path("space.yaml"))
        elif block.language == "yaml":
            make_config(yaml12.parse(block.text, name=page), name=page)


def test_no_reason_is_left_over_and_the_tests_that_are_named_are_there() -> None:
    texts = [*COMMANDS, *(block.text for page in PAGES for block in blocks(page))]
    for start, why in {**NOT_RUN, **ELSEWHERE}.items():
        assert any(re.search(f"(?m)^{start}", text) for text in texts), start
        assert all((ROOT / path).is_file() for path in re.findall(r"tests/\S+\.py", why)), why
    assert all((ROOT / path).is_file() for path in OTHERS.values())


SCRIPTS = [command for command in COMMANDS if " benchmarks/" in command]


@pytest.mark.parametrize("command", SCRIPTS)
def test_a_benchmark_has_these_options(command: str) -> None:
    script = re.search(r"benchmarks/\w+\.py", command)
    options = re.findall(r" (--?[a-zA-Z][\w-]*)", command.partition("python ")[2])
    assert script
    text = (ROOT / script[0]).read_text(encoding="utf-8")
    assert [one for one in options if one.replace("--no-", "--") not in text] == []
