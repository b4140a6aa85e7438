"""The commands generate and score, and what they show on a terminal."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import warm
from click.testing import CliRunner, Result
from imports import ROOT

from nanogpt2.__main__ import main
from nanogpt2.commands import console
from nanogpt2.config.config import Config
from nanogpt2.decode.draw import Controls
from nanogpt2.model.checkpoint import save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.sample import Sampler
from nanogpt2.tokens.tokenizer import CharTokenizer

TOKENIZER = CharTokenizer("\n abcdef")


@pytest.fixture
def saved(tiny: Config) -> Path:
    """A checkpoint in the current folder."""
    path = Path("model.pt")
    save_checkpoint(path, GPT(tiny).state_dict(), tiny, tokenizer=TOKENIZER, origin={})
    return path


def run(command: str, saved: Path, *options: str, text: str = "") -> Result:
    chosen = [command, "--checkpoint", str(saved), "--device", "cpu", *options]
    return CliRunner().invoke(main, chosen, input=text)


def test_generate_writes_the_prompt_and_as_many_tokens_as_asked(saved: Path) -> None:
    done = run("generate", saved, "--prompt", "abc", "--max-new-tokens", "40")
    assert done.exit_code == 0
    assert done.stdout.startswith("abc")
    assert len(done.stdout) == 3 + 40 + 1
    assert "40 tokens in" in done.stderr
    again = run("generate", saved, "--prompt", "abc", "--max-new-tokens", "40")
    assert again.stdout == done.stdout
    other = run("generate", saved, "--prompt", "abc", "--max-new-tokens", "40", "--seed", "5")
    assert other.stdout != done.stdout


def test_a_prompt_can_be_a_file_empty_or_longer_than_the_block(saved: Path) -> None:
    Path("prompt.txt").write_text("fed cab\n" * 20, encoding="utf-8")
    options = ["--max-new-tokens", "5", "--window", "half"]
    done = run("generate", saved, "--prompt-file", "prompt.txt", *options)
    assert done.stdout.startswith("fed cab\n" * 19)
    assert len(done.stdout) == 159 + 5 + 1
    assert len(run("generate", saved, *options).stdout) == 6


def test_each_line_of_a_prompts_file_has_its_sample_with_a_seed_of_its_own(saved: Path) -> None:
    Path("p.jsonl").write_text('{"prompt": "abc"}\n{"prompt": "f"}\n', encoding="utf-8")
    Path("p.txt").write_text("abc\nf\n", encoding="utf-8")
    options = ["--max-new-tokens", "5", "--seed", "8"]
    lines = run("generate", saved, "--prompts", "p.jsonl", "--json", *options).stdout.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [(answer["prompt"], answer["seed"]) for answer in answers] == [("abc", 8), ("f", 9)]
    texts = run("generate", saved, "--prompts", "p.txt", *options).stdout
    assert texts == "---\n".join(answer["prompt"] + answer["text"] + "\n" for answer in answers)
    alone = run("generate", saved, "--prompt", "f", "--max-new-tokens", "5", "--seed", "9").stdout
    assert alone == "f" + answers[1]["text"] + "\n"


def test_a_stop_string_ends_a_text_or_is_never_met(saved: Path) -> None:
    options = ["--prompt", "a", "--max-new-tokens", "60", "--temperature", "3"]
    whole = run("generate", saved, *options).stdout
    stop = whole[20:22]
    stopped = run("generate", saved, *options, "--stop", stop).stdout
    assert stopped == whole[: whole.index(stop, 1)] + "\n"
    assert run("generate", saved, *options, "--stop", "abcabcabc").stdout == whole


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--prompt", "aé"], "the tokenizer does not know the character 'é' (U+00E9), number 2"),
        (["--temperature", "-1"], "generate: sample.temperature: found -1.0; allowed: a number"),
        (["--top-k", "-1"], "generate: sample.top_k: found -1; allowed"),
        (["--window", "whole"], 'generate: sample.window: found "whole"; allowed: exact, half'),
        (["--stop", ""], 'generate: sample.stop.0: found ""; allowed: a text, not empty'),
        (["--prompt-file", "none.txt"], "none.txt: cannot be read"),
        (["--prompts", "bad.jsonl"], 'bad.jsonl: line 1: not {"prompt": "a text"}'),
    ],
)
def test_a_mistake_has_one_line_and_writes_nothing(
    saved: Path, options: list[str], line: str
) -> None:
    Path("bad.jsonl").write_text("[1]\n", encoding="utf-8")
    done = run("generate", saved, *options)
    assert done.exit_code == 1
    assert done.stderr.startswith(line)
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_top_k_above_the_vocabulary_keeps_all(saved: Path) -> None:
    options = ["--prompt", "a", "--max-new-tokens", "20"]
    everything = run("generate", saved, *options)
    assert run("generate", saved, *options, "--top-k", "100000").stdout == everything.stdout


def test_what_is_no_checkpoint_is_refused_in_one_line(saved: Path) -> None:
    Path("text.pt").write_text("hello")
    done = run("generate", Path("text.pt"))
    assert (done.exit_code, done.stderr) == (1, "text.pt: damaged, or not a checkpoint\n")


def test_two_sources_of_prompts_are_a_usage_error(saved: Path) -> None:
    assert run("generate", saved, "--prompt", "a", "--interactive").exit_code == 2


@pytest.mark.parametrize("blank", ["", "  ", "\t", "\r"], ids=ascii)
def test_blank_lines_are_no_prompts(saved: Path, blank: str) -> None:
    options = ["--max-new-tokens", "5"]
    Path("p.txt").write_text("abc\nf\n", encoding="utf-8")
    Path("q.txt").write_text(f"{blank}\nabc\n{blank}\n\nf\n{blank}\n{blank}", encoding="utf-8")
    expected = run("generate", saved, "--prompts", "p.txt", *options).stdout
    assert run("generate", saved, "--prompts", "q.txt", *options).stdout == expected
    lines = f'{blank}\n{{"prompt": "abc"}}\n{blank}\n{{"prompt": "f"}}\n\n'
    Path("q.jsonl").write_text(lines, encoding="utf-8")
    assert run("generate", saved, "--prompts", "q.jsonl", *options).stdout == expected
    Path("none.txt").write_text(f"{blank}\n", encoding="utf-8")
    done = run("generate", saved, "--prompts", "none.txt", *options)
    line = "none.txt: no prompt; allowed: a prompt in each line\n"
    assert (done.exit_code, done.stderr) == (1, line)


def test_a_conversation_says_what_it_is_and_takes_settings(saved: Path) -> None:
    lines = ["/help", "/length 3", "ab", "/temperature 0", "ab", "/length 9", "ab", "/quit", "cd"]
    done = run("generate", saved, "--interactive", "--seed", "3", text="\n".join(lines))
    assert done.exit_code == 0
    assert "it does not converse" in done.stderr
    assert done.stderr.count("/temperature 0.7") == 1
    written = done.stdout.replace("> ", "")
    one = run("generate", saved, "--prompt", "ab", "--max-new-tokens", "3", "--seed", "3").stdout
    greedy = ["--prompt", "ab", "--temperature", "0", "--max-new-tokens"]
    others = "".join(run("generate", saved, *greedy, n).stdout for n in ("3", "9"))
    assert written == one + others


FINITE = "allowed: a finite number, at least 0\n"
COUNTS = "allowed: an integer, from 1 to 10000000\n"
SEEDS = f"allowed: an integer, from 0 to {2**64 - 1}\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/temperature", f"/temperature: found ''; {FINITE}"),
        ("/temperature hot", f"/temperature: found 'hot'; {FINITE}"),
        ("/temperature 0,5", f"/temperature: found '0,5'; {FINITE}"),
        ("/temperature nan", f"/temperature: found nan; {FINITE}"),
        ("/temperature 1e999", f"/temperature: found inf; {FINITE}"),
        ("/temperature -1", f"/temperature: found -1.0; {FINITE}"),
        ("/length", f"/length: found ''; {COUNTS}"),
        ("/length 0", f"/length: found 0; {COUNTS}"),
        ("/length -5", f"/length: found -5; {COUNTS}"),
        ("/length 1e3", f"/length: found '1e3'; {COUNTS}"),
        ("/length 10000001", f"/length: found 10000001; {COUNTS}"),
        ("/top-k", "/top-k: found ''; allowed: an integer, at least 0\n"),
        ("/top-k -1", "/top-k: found -1; allowed: an integer, at least 0\n"),
        ("/top-k 1.5", "/top-k: found '1.5'; allowed: an integer, at least 0\n"),
        ("/seed", f"/seed: found ''; {SEEDS}"),
        ("/seed -1", f"/seed: found -1; {SEEDS}"),
        ("/seed one", f"/seed: found 'one'; {SEEDS}"),
        (f"/seed {2**64}", f"/seed: found {2**64}; {SEEDS}"),
        ("/", "no command /"),
        ("/tempreature 1", "no command /tempreature"),
    ],
)
def test_a_setting_that_is_none_is_said_and_changes_nothing(
    saved: Path, line: str, said: str
) -> None:
    options = ["--interactive", "--max-new-tokens", "4"]
    done = run("generate", saved, *options, text=f"{line}\nab\n")
    usual = run("generate", saved, *options, text="ab\n")
    assert said in done.stderr
    more = len(done.stderr.splitlines()) - len(usual.stderr.splitlines())
    assert said.startswith("no command") or more == 1
    assert done.stdout == "> " + usual.stdout


def test_settings_take_the_ends_of_what_is_allowed(saved: Path) -> None:
    lines = ["/temperature 0", "/length\t1", "/top-k  0", f"/seed {2**64 - 1}", "ab", "/quit now"]
    done = run("generate", saved, "--interactive", text="\n".join([*lines, "cd"]))
    said = f"temperature 0.0\nlength 1\ntop-k 0\nseed {2**64 - 1}\n"
    assert said in done.stderr
    assert "found" not in done.stderr
    assert len(done.stdout.replace("> ", "")) == len("ab") + 1 + 1


def test_two_slashes_begin_a_text_with_one(tiny: Config) -> None:
    tokenizer = CharTokenizer("/ab")
    shown: list[str] = []
    lines = iter(["//ab", "/quit"])
    console.converse(
        Sampler(GPT(tiny), tokenizer, 3),
        seed=0,
        read=lambda _: next(lines),
        write=shown.append,
        say=lambda _: None,
    )
    assert "".join(shown).startswith("/ab")


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_what_is_typed_ahead_does_not_mix_into_a_text(saved: Path) -> None:
    import pty

    main_end, end = pty.openpty()
    command = [warm.executable(), "-m", "nanogpt2", "generate", "--checkpoint", str(saved)]
    options = ["--device", "cpu", "--interactive", "--max-new-tokens", "5000"]
    process = subprocess.Popen(
        [*command, *options], env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"},
        stdin=end, stdout=end, stderr=end,
    )  # fmt: skip
    os.close(end)
    shown = b""

    def read_until(mark: bytes, start: int = 0) -> None:
        nonlocal shown
        while mark not in shown[start:]:
            shown += os.read(main_end, 1000)

    try:
        read_until(b"> ")
        os.write(main_end, b"ab\n")
        written = len(shown) + 4
        while len(shown) < written + 200:  # the text is under way
            shown += os.read(main_end, 1000)
        os.write(main_end, b"zzz")
        read_until(b"> ", written)
        text = shown[written:].partition(b"> ")[0]
        assert b"z" not in text
        os.write(main_end, b"/quit\n")  # after zzz, which is at the prompt now
        read_until(b"character 'z'")
        os.write(main_end, b"/quit\n")
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        os.close(main_end)


def test_a_conversation_goes_on_after_mistakes_until_its_input_ends(saved: Path) -> None:
    done = run("generate", saved, "--interactive", "--max-new-tokens", "4", text="ab\nxyz\ncd\n")
    assert done.exit_code == 0
    assert "ab" in done.stdout
    assert "cd" in done.stdout
    assert "does not know the character 'x'" in done.stderr


def test_a_conversation_goes_on_after_bytes_that_are_no_text(saved: Path) -> None:
    command = [warm.executable(), "-m", "nanogpt2", "generate", "--checkpoint", str(saved)]
    done = subprocess.run(
        [*command, "--device", "cpu", "--interactive", "--max-new-tokens", "4"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8:strict"},
        input=b"caf\xe9\nfed\n",
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert b"fed" in done.stdout
    assert b"does not know the character '\\udce9'" in done.stderr
    assert b"Traceback" not in done.stderr


def test_ctrl_c_in_a_conversation_ends_the_text_under_way_alone(tiny: Config) -> None:
    shown: list[str] = []

    def read(_: str) -> str:
        if prompts:
            return prompts.pop()
        raise EOFError

    prompts = ["ab", "cd"]
    console.converse(
        Sampler(GPT(tiny), TOKENIZER, 5, Controls()),
        seed=0,
        read=read,
        write=interrupting(shown),
        say=lambda _: None,
    )
    assert "".join(shown).startswith("ab")


def interrupting(shown: list[str]) -> Callable[[str], None]:
    """Return a `write` that keeps what it is given, but meets Ctrl-C the first time."""

    def steps() -> Iterator[bool]:
        yield True
        while True:
            yield False

    first = steps()

    def write(text: str) -> None:
        if next(first):
            raise KeyboardInterrupt
        shown.append(text)

    return write


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_politely(saved: Path) -> None:
    command = [warm.executable(), "-m", "nanogpt2", "generate", "--checkpoint", str(saved)]
    options = ["--device", "cpu", "--prompt", "abc", "--max-new-tokens", "1000000"]
    process = subprocess.Popen(
        [*command, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background job, as these tests may be, ignores the signal from its start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.read(20).startswith("abc")
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said.startswith("\ninterrupted\ngenerate: ")  # so many tokens
    assert said.count("\n") == 3


def test_score_says_the_loss_and_writes_a_page(saved: Path) -> None:
    Path("text.txt").write_text("abc def\n" * 5, encoding="utf-8")
    chosen = ["score", "text.txt", "--checkpoint", str(saved), "--device", "cpu"]
    done = CliRunner().invoke(main, [*chosen, "--html", "page.html"])
    assert done.exit_code == 0
    assert "nats/token" in done.stdout
    assert "bits/byte" in done.stdout
    assert Path("page.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    missing = CliRunner().invoke(main, ["score", "none.txt", "--checkpoint", str(saved)])
    assert (missing.exit_code, len(missing.stderr.splitlines())) == (1, 1)
