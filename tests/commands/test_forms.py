"""One text, however it is written, is one text to a model, wherever it enters."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from nanogpt2.__main__ import main
from nanogpt2.config.config import Config
from nanogpt2.config.groups import SampleConfig
from nanogpt2.decode.draw import Controls
from nanogpt2.evaluate.memorisation import find_copies
from nanogpt2.evaluate.score import score_text
from nanogpt2.model.checkpoint import save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.sample import Sampler, sample_texts
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer
from stages.sample import main as sample_stage
from stages.validate import main as validate_stage

PLAIN = "Größe, café\nnaïve Ångström, 한글"
FORMS = {
    "decomposed": "Gro\u0308ße, cafe\u0301\nnai\u0308ve A\u030angstro\u0308m, 한글",
    "singleton": "Größe, café\nnaïve \u212bngström, 한글",  # the sign of the unit, for its letter
    "jamo": "Größe, café\nnaïve Ångström, \u1112\u1161\u11ab\u1100\u1173\u11af",
    "Windows": "Größe, café\r\nnaïve Ångström, 한글",
    "old Mac": "Größe, café\rnaïve Ångström, 한글",
    "line separator": "Größe, café\u2028naïve Ångström, 한글",
    "byte order mark": "\ufeffGröße, café\nnaïve Ångström, 한글",
    "all at once": "\ufeffGro\u0308ße, cafe\u0301\r\nnaïve \u212bngström, 한글",
}
MODEL = ["--checkpoint", "model.pt", "--device", "cpu"]
each_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def model(tiny: Config) -> GPT:
    """A model of bytes, also saved as model.pt in the current folder."""
    model = GPT({**tiny.to_dict(), "vocab_size": 256})
    save_checkpoint(
        Path("model.pt"), model.state_dict(), model.config, tokenizer=ByteTokenizer(), origin={}
    )
    return model


def command(*arguments: str, text: str = "") -> str:
    done = CliRunner().invoke(main, [*arguments[:1], *MODEL, *arguments[1:]], input=text)
    assert done.exit_code == 0, done.output
    return done.stdout


def generate(*arguments: str, text: str = "") -> str:
    return command("generate", "--max-new-tokens", "6", *arguments, text=text)


def write(name: str, text: str) -> str:
    Path(name).write_bytes(text.encode())
    return name


@each_form
def test_generate_takes_any_form_of_a_prompt(form: str, model: GPT) -> None:
    expected = generate("--prompt", PLAIN)
    assert expected.startswith(PLAIN)
    assert generate("--prompt", FORMS[form]) == expected
    assert generate("--prompt-file", write("p.txt", FORMS[form] + "\n")) == expected


@each_form
def test_a_file_of_prompts_may_be_in_any_form(form: str, model: GPT) -> None:
    expected = generate("--prompts", write("plain.txt", PLAIN + "\n"))
    assert generate("--prompts", write("p.txt", FORMS[form] + "\n")) == expected


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=ascii)
@pytest.mark.parametrize("escaped", [True, False])
@each_form
def test_a_file_of_json_lines_may_be_in_any_form(
    form: str, escaped: bool, newline: str, model: GPT
) -> None:
    lines = [json.dumps({"prompt": text}, ensure_ascii=escaped) for text in (FORMS[form], "b")]
    path = write("p.jsonl", "\ufeff" + "".join(line + newline for line in lines))
    shown = generate("--json", "--prompts", path).splitlines()
    assert [json.loads(line)["prompt"] for line in shown] == [PLAIN, "b"]
    alone = write("alone.jsonl", json.dumps({"prompt": PLAIN}))
    assert generate("--json", "--prompts", alone).splitlines() == shown[:1]


def test_a_conversation_takes_any_form(model: GPT) -> None:
    expected = generate("--interactive", text="Größe, café\n")
    for text in ("Gro\u0308ße, cafe\u0301\n", "\ufeffGröße, café\n", "Größe, café\r\n"):
        assert generate("--interactive", text=text).replace("> ", "") == expected.replace("> ", "")


@each_form
def test_a_score_is_that_of_the_plain_form(form: str, model: GPT) -> None:
    expected = score_text(model, ByteTokenizer(), PLAIN)
    assert score_text(model, ByteTokenizer(), FORMS[form]).figures == expected.figures
    line = command("score", write("plain.txt", PLAIN))
    assert f"loss {expected.figures['loss']:.4f} nats/token" in line
    assert command("score", write("t.txt", FORMS[form])) == line


@pytest.mark.parametrize("stop", ["é", "e\u0301", "\ufeffe\u0301", "é\n", "e\u0301\r\n"], ids=ascii)
def test_a_text_ends_before_any_form_of_a_stop_string(stop: str, tiny: Config) -> None:
    tokenizer = CharTokenizer("é\n")
    model = GPT(tiny)

    def draw(*stops: str) -> str:
        sampler = Sampler(model, tokenizer, 60, Controls(temperature=3.0), stop=stops)
        return sampler.write_on(["é"], seed=1)[0]

    whole, met = draw(), "é\n" if "\n" in stop or "\r" in stop else "é"
    assert met in whole
    assert draw(stop) == whole[: whole.index(met)]


@each_form
def test_the_library_samples_from_any_form(form: str, tiny: Config, model: GPT) -> None:
    knobs = SampleConfig(**{**tiny.to_dict()["sample"], "max_new_tokens": 4, "num_samples": 2})
    expected = sample_texts(model, ByteTokenizer(), PLAIN, knobs)
    assert sample_texts(model, ByteTokenizer(), FORMS[form], knobs) == expected


@each_form
def test_a_copy_is_found_in_whatever_form_it_was_written(form: str) -> None:
    [copies] = find_copies([[FORMS[form]]], [f"abc{PLAIN}def"])
    assert copies.stretches == [PLAIN]


@pytest.fixture
def small(tiny: Config) -> None:
    """A model of the characters of PLAIN, and PLAIN as the corpus."""
    tokenizer = CharTokenizer.train(PLAIN)
    torch.manual_seed(0)
    save_checkpoint(Path("model.pt"), GPT(tiny).state_dict(), tiny, tokenizer=tokenizer, origin={})
    write("corpus.txt", PLAIN * 9)


def stages(sample: Mapping[str, object]) -> list[str]:
    """Return the samples of the stages validate and sample, which both must pass."""
    params = {"corpus": "corpus.txt", "block_size": 8, "device": "cpu"}
    knobs = {"num_samples": 2, "max_new_tokens": 4, "stop": ["Å"], **sample}
    write("my.yaml", json.dumps({**params, "sample": knobs}, ensure_ascii=False))
    config = ["--config", "my.yaml"]
    for stage, options in ((validate_stage, []), (sample_stage, ["--checkpoint", "model.pt"])):
        out = "samples" if options else "validated.json"
        done = CliRunner().invoke(stage, [*config, *options, "--out", out])
        assert done.exit_code == 0, done.output
    return [path.read_text(encoding="utf-8") for path in sorted(Path("samples").iterdir())]


@each_form
def test_what_validate_accepts_the_sample_stage_takes(form: str, small: None) -> None:
    prompt_file = write("p.txt", PLAIN + "\n")
    expected = stages({"prompt_file": prompt_file})
    assert all(text.startswith(PLAIN) for text in expected)
    assert stages({"prompt": FORMS[form], "prompt_file": prompt_file}) == expected
    in_file = {"prompt_file": write("q.txt", FORMS[form] + "\n"), "stop": ["\u212b"]}
    assert stages(in_file) == expected
