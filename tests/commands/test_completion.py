"""Tab completes commands, options and files in real shells, for whatever Python the line names."""

import os
import pty
import re
import select
import shutil
import time
from pathlib import Path

import pytest
import warm
from click.testing import CliRunner
from imports import ROOT

from nanogpt2.__main__ import main
from nanogpt2.commands.completion import SCRIPTS

SHELLS = {
    "bash": ["bash", "--norc", "--noprofile"],
    "zsh": ["zsh", "--no-rcs"],
    "fish": ["fish", "--no-config", "--private"],
}
FIRST = {"zsh": "unsetopt zle_bracketed_paste; PS1='$ '"}
TYPED = {
    "python -m nanogpt2 verif": "verify ",
    "python -m nanogpt2 runs p": "prune ",
    "python -m nanogpt2 generate --temp": "--temperature ",
    "python -m nanogpt2 export --to onn": "onnx ",
    "python -m nanogpt2 preset fin": "finetune ",
    "python -m nanogpt2 sweep -S muon_l": "muon_learning_rate=",
    "python -m nanogpt2 score my-no": "my-novel.txt ",
    "python my-sc": "my-script.py ",
}


class Shell:
    """A shell on a terminal of its own."""

    def __init__(self, name: str) -> None:
        self.seen = ""
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            words = {"TERM": "xterm", "HOME": str(Path.cwd()), "PYTHONPATH": str(ROOT)}
            path = f"{Path.cwd()}{os.pathsep}{os.environ['PATH']}"
            os.execvpe(SHELLS[name][0], SHELLS[name], {**os.environ, **words, "PATH": path})

    def type(self, keys: str, until: str) -> None:
        """Type `keys`, and wait until what is shown after them has `until`."""
        os.write(self.terminal, keys.encode())
        shown, end = "", time.monotonic() + 60
        while until not in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown):
            assert time.monotonic() < end, shown
            if select.select([self.terminal], [], [], 0.1)[0]:
                shown += os.read(self.terminal, 1 << 16).decode(errors="replace")
                for question in ("\x1b[c", "\x1b[0c"):  # fish asks what the terminal is
                    if question in shown:
                        os.write(self.terminal, b"\x1b[?62c")
                        shown = shown.replace(question, "")

    def close(self) -> None:
        os.close(self.terminal)
        os.kill(self.process, 9)
        os.waitpid(self.process, 0)


@pytest.mark.parametrize("name", SCRIPTS)
def test_tab_completes(name: str) -> None:
    if not shutil.which(name):
        pytest.skip(f"no {name}")
    script = CliRunner().invoke(main, ["completion", name])
    Path("lines").write_text(script.stdout, encoding="utf-8")
    Path("python").symlink_to(warm.executable())
    for file in ("my-novel.txt", "my-script.py"):
        Path(file).touch()
    shell = Shell(name)
    try:
        shell.type(f"{FIRST.get(name, ':')}; source ./lines; echo re''ady\r", "ready")
        for line, completed in TYPED.items():
            begun = line.rpartition(" ")[2]
            shell.type(f"{line}\t", completed.removeprefix(begun))
            shell.type("\x15echo cl''ear\r", "clear")
    finally:
        shell.close()


def test_what_is_not_there_completes_to_nothing_and_says_nothing() -> None:
    line = {"COMP_WORDS": "nanogpt2 xyz --t", "COMP_CWORD": "2"}
    done = CliRunner().invoke(
        main, env={"_NANOGPT2_COMPLETE": "bash_complete", **line}, complete_var="_NANOGPT2_COMPLETE"
    )
    assert (done.exit_code, done.stderr) == (0, "")
