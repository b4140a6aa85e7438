"""The documents keep their word: examples run, links lead somewhere, commands exist."""

import re
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name

import pytest
from click.testing import CliRunner
from documents import DOCUMENTS, name
from imports import ROOT

# Their Python needs what their commands make: tests/whole/test_page_blocks.py runs it.
FOLLOWED = ("docs/export.md", "docs/finetuning.md", "docs/scaling.md", "docs/serving.md")
COMMAND = re.compile(r"\bpython3? -m ([a-z]\w*(?:\.\w+)*(?: [\w./=-]+)*)")
NAMED = re.compile(r"`(nanogpt2(?:\.[A-Za-z_]\w*)+)\b")
LINK = re.compile(r"\[([^]]*)\]\(([^)\s]+)\)")
FILE = re.compile(r"`?(\w[\w.-]*\.(?:c|h|js|json|md|py|toml|yaml))`?")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def python_blocks(text: str) -> str:
    """Return the lines of the python blocks, the others empty: line numbers are the document's."""
    lines, inside = [], False
    for line in text.splitlines():
        is_fence = line.startswith("```")
        lines.append(line if inside and not is_fence else "")
        inside = line == "```python" if is_fence else inside
    return "\n".join(lines)


def prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def headings(text: str) -> set[str]:
    """Return the names that GitHub gives to a document's headings in links."""
    titles = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands() -> list[str]:
    return sorted({command for path in DOCUMENTS for command in COMMAND.findall(read(path))})


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in DOCUMENTS
        if python_blocks(read(path)).strip() and name(path) not in FOLLOWED
    ],
    ids=name,
)
def test_the_python_blocks_run_in_order(path: Path) -> None:
    exec(compile(python_blocks(read(path)), path, "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for shown, link in LINK.findall(prose(read(path))):
        if "://" in link:
            continue
        target, _, heading = link.partition("#")
        file = path.parent / target if target else path
        assert file.exists(), link
        named = FILE.fullmatch(shown)
        assert not named or file.name == named[1], (shown, link)
        assert not heading or heading in headings(read(file)), link


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_what_is_named_of_the_library_is_there(path: Path) -> None:
    for named in NAMED.findall(read(path)):
        resolve_name(named)


@pytest.mark.parametrize("command", commands())
def test_commands_exist(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    module, *arguments = command.split()
    main = import_module("nanogpt2.__main__" if module == "nanogpt2" else module).main
    done = CliRunner().invoke(main, [*arguments, "--help"])
    assert done.exit_code == 0, done.output
