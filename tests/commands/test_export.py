"""The command export, as it is typed."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from variants import warmed

from nanogpt2.__main__ import main
from nanogpt2.base.system import files
from nanogpt2.config.config import MODEL_KEYS, Config, get_config
from nanogpt2.model.checkpoint import save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.tokenizer import CharTokenizer


@pytest.fixture
def model(tiny: Config) -> GPT:
    """A model of characters, also saved as model.pt in the current folder."""
    return save("model.pt", tiny)


def save(path: str, config: Config) -> GPT:
    model = warmed(config)
    tokenizer = CharTokenizer("\n abc")
    save_checkpoint(path, model.state_dict(), model.config, tokenizer=tokenizer, origin={})
    return model


def export(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["export", "--checkpoint", "model.pt", *arguments])
    return done.exit_code, done.output


def test_it_writes_a_folder_and_says_how_exact_it_is(model: GPT) -> None:
    code, said = export("--to", "huggingface", "out")
    assert code == 0
    architecture, logits, greedy, past, last = said.splitlines()
    assert last.endswith(" -> out")
    assert architecture == "huggingface: GPT2LMHeadModel"
    assert "logits of 16 tokens differ by at most" in logits
    assert greedy == "greedy text: 15 of 15 tokens are the same"
    assert "longer than block_size" in past
    card = files.read_text("out/README.md")
    assert card.startswith("---\n")
    assert "greedy equal: 15" in card
    assert files.read_json("out/config.json")["vocab_size"] == 6  # of the five characters, and pad


def test_safetensors_hold_the_weights_by_our_names_and_what_they_belong_to(model: GPT) -> None:
    for path in ("a.safetensors", "b.safetensors"):
        assert export("--to", "safetensors", path)[0] == 0
    assert files.read_bytes("a.safetensors") == files.read_bytes("b.safetensors")
    with safe_open("a.safetensors", framework="pt") as opened:
        assert set(opened.keys()) == set(model.state_dict())
        for name, weight in model.state_dict().items():
            assert torch.equal(opened.get_tensor(name), weight)
        described = json.loads(opened.metadata()["nanogpt2"])
    assert described["tokenizer"] == {"name": "char", "characters": "\n abc"}
    keys = {**get_config({}).to_dict(), **described["config"]}
    assert all(get_config(keys)[key] == model.config[key] for key in MODEL_KEYS)


def test_a_model_without_equal_is_refused_by_the_knob_and_nothing_is_written(tiny: Config) -> None:
    save("model.pt", get_config(tiny, architecture="modern", mlp="swiglu"))
    code, said = export("out")
    assert code == 1
    assert said.startswith("logit_softcap: found 15.0; allowed: 0.0 in Qwen3ForCausalLM")
    assert said.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "gguf", "--page", "out"], "--page is --to page, and --to gguf is given"),
        (["--run", "newest", "out"], "--run reads the state of a run, not --checkpoint"),
        (["--to", "safetensors", "./model.pt"], "model.pt is the model that is read"),
    ],
)
def test_what_cannot_both_be_meant_is_refused(model: GPT, arguments: list[str], said: str) -> None:
    before = files.read_bytes("model.pt")
    code, output = export(*arguments)
    assert code == 2
    assert said in output
    assert files.read_bytes("model.pt") == before
    assert not Path("out").exists()


def test_what_is_missing_or_in_the_way_is_one_line(model: GPT) -> None:
    files.write_text("mine/notes.txt", "mine")
    assert export("mine") == (
        1,
        "mine: is no export of nanoGPT2, so it stays; choose another folder\n",
    )
    done = CliRunner().invoke(main, ["export", "--checkpoint", "none.pt", "out"])
    assert done.exit_code == 1
    assert (
        done.output == "none.pt: no such file; `dvc repro train` makes checkpoints/best_model.pt\n"
    )


def test_a_file_for_llama_cpp_says_its_architecture_and_what_was_read_back(model: GPT) -> None:
    code, said = export("--to", "gguf", "model.gguf")
    assert code == 0
    architecture, tensors, past, last = said.splitlines()
    assert architecture == "gguf: gpt2"
    assert last.endswith(" -> model.gguf")
    assert tensors == "28 tensors read back are the same"
    assert "past block_size" in past
    assert files.read_bytes("model.gguf").startswith(b"GGUF")


def test_a_model_without_an_equal_in_llama_cpp_ends_in_a_line_for_each_knob(tiny: Config) -> None:
    save("model.pt", get_config(tiny, architecture="modern"))
    code, said = export("--to", "gguf", "model.gguf")
    assert code == 1
    assert [line.partition(":")[0] for line in said.splitlines()] == ["logit_softcap", "mlp"]
    assert not files.exists("model.gguf")


def test_a_page_says_its_size_and_what_fewer_bits_cost(model: GPT) -> None:
    code, said = export("--page", "model.html")
    assert code == 0
    kind, size, greedy, last = said.splitlines()
    assert kind == "page: one HTML file, for a browser without network"
    content = files.read_bytes("model.html")
    assert size.startswith(f"{len(content):,} bytes, of 16 bits a weight: they cost 0.0000")
    assert greedy == "greedy text: 200 of 200 tokens are the same as of the whole weights"
    assert last.endswith(" -> model.html")
    assert export("--to", "page", "again/model.html")[0] == 0
    assert files.read_bytes("again/model.html") == content
