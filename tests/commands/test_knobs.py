"""The knobs of generate: an option, then params.yaml, then the schema; help says which counts."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nanogpt2.__main__ import main
from nanogpt2.config.config import Config
from nanogpt2.model.checkpoint import save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.tokenizer import CharTokenizer

PARAMS = """
n_head: nonsense
sample: {max_new_tokens: 7, temperature: 3.0, top_k: 2, seed: 5, prompt: abc}
"""


@pytest.fixture(autouse=True)
def _saved(tiny: Config) -> None:
    """A checkpoint in the current folder."""
    tokenizer = CharTokenizer("\n abcdef")
    save_checkpoint("m.pt", GPT(tiny).state_dict(), tiny, tokenizer=tokenizer, origin={})


def generate(*options: str) -> Result:
    return CliRunner().invoke(
        main, ["generate", "--checkpoint", "m.pt", "--device", "cpu", *options]
    )


def write(text: str, name: str = "params.yaml") -> None:
    Path(name).write_text(text, encoding="utf-8")


def test_an_option_comes_before_the_file_and_the_file_before_the_schema() -> None:
    schema = generate("--prompt", "abc").stdout
    assert len(schema) == 3 + 500 + 1
    alike = ["--prompt", "abc", "--temperature", "3", "--top-k", "2", "--seed", "5"]
    expected = generate(*alike, "--max-new-tokens", "7").stdout
    write(PARAMS)
    assert generate().stdout == expected
    assert generate("--max-new-tokens", "20").stdout.startswith(expected[:-1])
    assert generate("--prompt", "f").stdout.startswith("f")
    assert (
        generate("--top-k", "0", "--max-new-tokens", "30").stdout
        != generate("--max-new-tokens", "30").stdout
    )


def test_another_file_can_be_given_and_must_be_there() -> None:
    write(PARAMS, "mine.yaml")
    assert len(generate("--params", "mine.yaml").stdout) == 3 + 7 + 1
    done = generate("--params", "none.yaml")
    assert (done.exit_code, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("none.yaml: cannot be read")


def test_the_files_prompt_file_counts_where_it_names_one() -> None:
    write("sample: {max_new_tokens: 2}\n")
    assert len(generate().stdout) == 2 + 1
    write("sample: {max_new_tokens: 2, prompt_file: my.txt}\n")
    assert generate().stderr.startswith("my.txt: cannot be read")
    write("fed\n", "my.txt")
    assert generate().stdout.startswith("fed")
    assert generate("--prompt", "a").stdout.startswith("a")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "sample: {temperature: -1}",
            "params.yaml: sample.temperature: found -1; allowed: a number",
        ),
        ("sample: {temprature: 1}", "params.yaml: sample.temprature: unknown key; did you mean"),
        ("sample: 5", "params.yaml: sample: found 5; allowed: keys with values"),
        ("sample:", "params.yaml: sample: found null; allowed: keys with values"),
        ("sample: {stop: a}", 'params.yaml: sample.stop: found "a"; allowed: a list of texts'),
        ("sample: [", "params.yaml: line 1: "),
        ("", "params.yaml: the file is empty"),
    ],
)
def test_what_is_wrong_in_the_file_has_its_name(text: str, line: str) -> None:
    write(text)
    done = generate("--max-new-tokens", "3")
    assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith(line)


def test_help_shows_what_counts_and_where_it_comes_from() -> None:
    def shown() -> str:
        return " ".join(generate("--help").stdout.split())

    assert "0 greedy. [default: 0.8]" in shown()
    assert "Tokens after the prompt. [default: 500]" in shown()
    write(PARAMS)
    assert "0 greedy. [default: 3.0, of params.yaml]" in shown()
    assert "0 among all. [default: 2, of params.yaml]" in shown()
    assert "make up p. [default: null]" in shown()
    assert "An option given comes first" in shown()
    for broken in ("sample: [", "sample: 5", "\0"):
        write(broken)
        assert "0 greedy. [default: 0.8]" in shown()
