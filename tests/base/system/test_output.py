"""Output: whatever the system's encoding, it is UTF-8 in files and pipes, or replaced."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from every import some
from imports import ROOT

from nanogpt2.config.config import Config
from nanogpt2.model.checkpoint import save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.tokenizer import CharTokenizer

TEXT = "naïve 日本 😀"
ENCODINGS = {  # of a system, as its environment says them
    "C": {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "POSIX": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    "none": {"LC_ALL": "", "LANG": "", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
CHOSEN = ["ascii", "cp1252", "latin-1", "cp932", "cp1251:strict", "US-ASCII:strict", "cp437"]


@pytest.fixture(autouse=True)
def _saved(tiny: Config) -> None:
    tokenizer = CharTokenizer("".join(sorted(set(TEXT))))
    save_checkpoint("m.pt", GPT(tiny).state_dict(), tiny, tokenizer=tokenizer, origin={})


def python(
    module: str, *arguments: str, environment: dict[str, str], input_: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        input=input_,
        capture_output=True,
        check=False,
    )


BOTH = """
from nanogpt2.__main__ import main

options = ["--checkpoint", "m.pt", "--device", "cpu", "--max-new-tokens", "9"]
main(["generate", *options, "--prompt-file", "p.txt"], standalone_mode=False)
print("\\n---")
main(["generate", *options, "--interactive"], standalone_mode=False)
"""


def test_a_file_or_pipe_is_utf_8_whatever_the_system_writes() -> None:
    """Both in one process, since torch's import takes long."""
    Path("p.txt").write_text(TEXT + "\n", encoding="utf-8")
    Path("both.py").write_text(BOTH, encoding="utf-8")
    done = python("both", input_=TEXT.encode() + b"\n", environment=ENCODINGS["C"])
    assert done.returncode == 0, done.stderr
    from_file, typed = done.stdout.decode("utf-8").split("\n---\n")
    assert from_file.startswith(TEXT)
    assert TEXT in typed


TWICE = """
import sys
from nanogpt2.__main__ import main

ended = []
for arguments in (["nano", "--params", sys.argv[1]], [sys.argv[2]]):
    try:
        main(["preset", "--quiet", *arguments])
    except SystemExit as end:
        ended.append(end.code)
sys.exit(ended != [0, 1])
"""


def presets(file: str, name: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command that is quick, since it needs no torch: with a file, and with a wrong name."""
    Path(file).write_bytes((ROOT / "nanogpt2/presets/nano.yaml").read_bytes())
    Path("twice.py").write_text(TWICE, encoding="utf-8")
    return python("twice", file, name, environment=environment)


@pytest.mark.parametrize("system", some(ENCODINGS, "C"))
def test_each_command_writes_utf_8(system: str) -> None:
    done = presets("日😀.yaml", "日😀", **ENCODINGS[system])
    # on such a system the name itself arrives as single bytes
    assert done.returncode == 0, done.stderr
    assert b"has the values of nano already" in done.stdout
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", some(CHOSEN, "ascii", "cp932", "cp1251:strict"))
def test_an_encoding_that_was_chosen_is_kept_and_what_it_lacks_replaced(encoding: str) -> None:
    name, file = encoding.partition(":")[0], "naïve日😀.yaml"
    name = "utf-8" if name.endswith(("ascii", "ASCII")) else name
    done = presets(file, "日😀ж", PYTHONIOENCODING=encoding)
    line = f"{file} has the values of nano already\n".encode(name, "replace")
    told = "unknown preset 日😀ж; allowed: base, finetune, nano, small\n".encode(
        name, "backslashreplace"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, line, told)


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
@pytest.mark.parametrize(
    ("redirection", "code"),
    [(">&-", 0), ("2>&-", 0), (">&- 2>&-", 0), ("<&-", 0), (">/dev/full", 1), ("2>/dev/full", 0)],
)
def test_streams_that_are_closed_or_full_give_no_traceback(redirection: str, code: int) -> None:
    Path("p.yaml").write_bytes((ROOT / "nanogpt2/presets/nano.yaml").read_bytes())
    line = f"exec {sys.executable} -m nanogpt2 preset nano --params p.yaml {redirection}"
    done = subprocess.run(
        ["sh", "-c", line],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    full = b"the output cannot be written: No space left on device; free some space\n"
    assert done.stderr == full if code else b"Traceback" not in done.stderr
