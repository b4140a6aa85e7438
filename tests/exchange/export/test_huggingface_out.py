"""An exported folder opens in transformers at once, and computes and writes what our model does."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from every import some
from imports import ROOT
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
from variants import warmed

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import CheckpointError, ConfigError, DataError
from nanogpt2.config.config import Config, get_config
from nanogpt2.exchange.export.huggingface_out import export_huggingface
from nanogpt2.exchange.incoming.pretrained import load_pretrained
from nanogpt2.model.checkpoint import Checkpoint
from nanogpt2.sample.sample import make_sampler
from nanogpt2.tokens.bpe.merges import train_from_texts
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer

CHARACTERS = "\n !',.:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
CHAR = CharTokenizer(CHARACTERS)
TRAINED = train_from_texts(["To be, or not to be: KING:\n"], 270, ["<|endoftext|>"])
SMALL = {"vocab_size": 80, "block_size": 32, "n_layer": 2, "n_head": 4, "n_embd": 32, "dropout": 0}
QWEN3 = {"architecture": "modern", "mlp": "swiglu", "logit_softcap": 0}
# What torch's sums in another order come to at most.
NEAR = 5e-5


def checkpoint_of(config: Config) -> Checkpoint:
    """Return a model all of whose weights are random, norms and an untied head too."""
    return Checkpoint(warmed(config).eval(), CHAR, {})


def small(**knobs: Any) -> Checkpoint:
    return checkpoint_of(get_config({**SMALL, **knobs}))


def default_config() -> Config:
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    shape = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "architecture")
    return get_config({key: values[key] for key in shape})


def open_folder(folder: Path) -> tuple[Any, Any]:
    """Return the model and tokenizer as anyone would open them."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    return model.train(False), AutoTokenizer.from_pretrained(folder)


@torch.no_grad()
def difference(checkpoint: Checkpoint, theirs: Any, *, n_tokens: int) -> float:
    model = checkpoint.model
    shape = (2, model.config.block_size)
    idx = torch.randint(n_tokens, shape, generator=torch.Generator().manual_seed(1))
    found = theirs(idx).logits[..., :n_tokens]
    return float((model(idx)[..., :n_tokens] - found).abs().max())


def greedy(checkpoint: Checkpoint, prompt: str, count: int, tokenizer: Tokenizer = CHAR) -> str:
    """Return `prompt` and the text that our model goes on with."""
    config = get_config({}, sample={"temperature": 0, "max_new_tokens": count}).sample
    return prompt + make_sampler(checkpoint.model, tokenizer, config).write_on([prompt], seed=0)[0]


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Path]:
    """The model of params.yaml, and its exported folder."""
    checkpoint = checkpoint_of(default_config())
    folder = tmp_path_factory.mktemp("exports") / "default"
    export_huggingface(checkpoint, CHAR, folder)
    return checkpoint, folder


def test_the_default_model_opens_and_computes_the_same(default: tuple[Checkpoint, Path]) -> None:
    checkpoint, folder = default
    theirs, tokenizer = open_folder(folder)
    assert difference(checkpoint, theirs, n_tokens=CHAR.size) < NEAR
    text = "  To be,\n or not to be: "
    assert tokenizer(text)["input_ids"] == CHAR.encode(text).tolist()
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_pipeline_goes_on_with_the_text_of_our_model(default: tuple[Checkpoint, Path]) -> None:
    checkpoint, folder = default
    write = pipeline("text-generation", model=str(folder))
    (answer,) = write("KING:\nO", max_new_tokens=100, do_sample=False)
    assert answer["generated_text"] == greedy(checkpoint, "KING:\nO", 100)
    (answer,) = write("KING:\nO")  # as the folder itself says: drawn, and no more than fits
    assert len(answer["generated_text"]) == len("KING:\nO") + 64


@pytest.mark.parametrize("knobs", [{}, {"architecture": "modern"}, QWEN3], ids=["", "cap", "qwen3"])
@pytest.mark.parametrize(
    "tokenizer", [CHAR, ByteTokenizer(), TRAINED], ids=["char", "byte", "trained bpe"]
)
def test_texts_of_a_padded_batch_are_those_of_each_alone(
    tmp_path: Path, knobs: dict[str, Any], tokenizer: Tokenizer
) -> None:
    checkpoint = small(**knobs, vocab_size=tokenizer.size)  # with no row to spare
    export_huggingface(checkpoint, tokenizer, tmp_path / "out")
    theirs, their_tokenizer = open_folder(tmp_path / "out")
    prompts = ["A", "To be, or n", "KING:"]
    batch = their_tokenizer(prompts, padding=True, return_tensors="pt")
    tokens = theirs.generate(**batch, max_new_tokens=16, do_sample=False)
    texts = their_tokenizer.batch_decode(tokens, skip_special_tokens=True)
    assert texts == [greedy(checkpoint, prompt, 16, tokenizer) for prompt in prompts]


@pytest.mark.parametrize("knobs", some([{}, {"architecture": "modern"}, QWEN3], QWEN3))
def test_greedy_text_of_500_tokens_is_the_same(tmp_path: Path, knobs: dict[str, Any]) -> None:
    checkpoint = small(**knobs, block_size=512, n_layer=1)
    export = export_huggingface(checkpoint, CHAR, tmp_path / "out")
    assert export.proof is not None
    assert export.proof.greedy_equal == export.proof.greedy_tokens == 128
    theirs, tokenizer = open_folder(tmp_path / "out")
    start = tokenizer("KING:\n", return_tensors="pt")
    tokens = theirs.generate(**start, max_new_tokens=500, do_sample=False)[0]
    assert tokenizer.decode(tokens) == greedy(checkpoint, "KING:\n", 500)


def test_qwen3_slides_past_the_block_as_our_model_does(tmp_path: Path) -> None:
    checkpoint = small(**QWEN3)
    export = export_huggingface(checkpoint, CHAR, tmp_path / "out")
    assert any("slides as ours does" in note for note in export.notes)
    theirs, tokenizer = open_folder(tmp_path / "out")
    start = tokenizer("KING:\n", return_tensors="pt")
    tokens = theirs.generate(**start, max_new_tokens=150, do_sample=False)[0]
    assert tokenizer.decode(tokens) == greedy(checkpoint, "KING:\n", 150)


@pytest.mark.parametrize(
    ("knobs", "words"),
    [({}, "it reads no text longer than block_size"), ({"architecture": "modern"}, "it sees all")],
)
def test_where_another_text_follows_past_the_block_it_is_said(
    tmp_path: Path, knobs: dict[str, Any], words: str
) -> None:
    export = export_huggingface(small(**knobs), CHAR, tmp_path / "out")
    assert any(words in note for note in export.notes)
    assert export.notes == json.loads((tmp_path / "out/export.json").read_text())["notes"]


@pytest.mark.parametrize("seed", range(10))
def test_a_random_mixture_of_knobs_is_exported_exactly_or_refused_by_name(
    tmp_path: Path, seed: int
) -> None:
    choose = random.Random(seed).choice
    knobs: dict[str, Any] = {
        "architecture": "modern",
        "mlp": choose(["gelu", "relu2", "swiglu"]),
        "logit_softcap": choose([0, 0, 15]),
        "qk_norm": choose([False, True]),
        "bias": choose([False, False, True]),
        "norm": choose(["rms", "rms", "layer"]),
        "tied_head": choose([False, True]),
        "n_kv_head": choose([1, 2, 4]),
        "n_layer": choose([1, 3]),
    }
    checkpoint = small(**knobs)
    refused = ""
    try:
        export_huggingface(checkpoint, CHAR, tmp_path / "out")
    except ConfigError as error:
        refused = str(error)
    if refused:
        assert {line.partition(":")[0] for line in refused.splitlines()} <= set(knobs)
        assert list(tmp_path.iterdir()) == []
        return
    theirs, _ = open_folder(tmp_path / "out")
    assert difference(checkpoint, theirs, n_tokens=CHAR.size) < NEAR


def test_an_export_comes_in_and_goes_out_again_with_the_same_bytes(
    tmp_path: Path, default: tuple[Checkpoint, Path]
) -> None:
    _, folder = default
    back = load_pretrained(folder)
    assert back.tokenizer is not None
    export_huggingface(back, back.tokenizer, tmp_path / "again")
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"):
        assert files.read_bytes(tmp_path / "again" / name) == files.read_bytes(folder / name), name


def test_special_tokens_are_none_or_have_a_row(default: tuple[Checkpoint, Path]) -> None:
    _, folder = default
    config = files.read_json(folder / "config.json")
    assert config["vocab_size"] == CHAR.size + 1  # rows that no token uses are not handed out
    assert [config[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [None, None, CHAR.size]
    assert files.read_json(folder / "generation_config.json")["suppress_tokens"] == [CHAR.size]


def test_the_record_has_the_hash_of_each_file_and_the_figures(
    default: tuple[Checkpoint, Path],
) -> None:
    _, folder = default
    record = files.read_json(folder / "export.json")
    others = {path.name for path in folder.iterdir()} - {"export.json"}
    assert set(record["files"]) == others
    for name, expected in record["files"].items():
        assert files.sha256(files.read_bytes(folder / name)) == expected
    assert record["proof"]["tokens"] == 128
    assert 0 < record["proof"]["largest_difference"] < NEAR
    assert record["architecture"] == files.read_json(folder / "config.json")["architectures"][0]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "export.json"])
def test_an_export_with_one_bit_flipped_is_not_taken_for_whole(tmp_path: Path, name: str) -> None:
    export_huggingface(small(), CHAR, tmp_path / "out")
    content = bytearray(files.read_bytes(tmp_path / "out" / name))
    content[len(content) // 2] ^= 1
    files.write_bytes(tmp_path / "out" / name, bytes(content))
    with pytest.raises(DataError, match=f"{name}: "):
        load_pretrained(tmp_path / "out")


def test_a_folder_that_is_no_export_stays_as_it_is(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    files.write_text(mine / "notes.txt", "mine")
    with pytest.raises(DataError, match="mine: is no export of nanoGPT2, so it stays"):
        export_huggingface(small(), CHAR, mine)
    with pytest.raises(DataError, match=r"notes\.txt: is a file"):
        export_huggingface(small(), CHAR, mine / "notes.txt")
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]


def test_an_export_is_replaced_unless_something_was_put_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    export_huggingface(small(), CHAR, folder)
    before = files.read_bytes(folder / "model.safetensors")
    files.write_text(folder / "notes.txt", "mine")
    with pytest.raises(DataError, match=r"out: holds notes\.txt beside an export"):
        export_huggingface(small(seed=2), CHAR, folder)
    assert files.read_bytes(folder / "model.safetensors") == before
    (folder / "notes.txt").unlink()
    export_huggingface(small(seed=2), CHAR, folder)
    assert files.read_bytes(folder / "model.safetensors") != before


def test_a_model_that_computes_no_numbers_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    checkpoint = small()
    checkpoint.model.state_dict()["h.1.mlp.c_fc.bias"][0] = torch.nan
    with pytest.raises(CheckpointError, match="computes something else: logits differ by nan"):
        export_huggingface(checkpoint, CHAR, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_that_transformers_cuts_otherwise_is_refused(tmp_path: Path) -> None:
    class Reversed(CharTokenizer):
        def encode(self, text: str) -> Any:
            return super().encode(text)[::-1]

    with pytest.raises(CheckpointError, match="makes other tokens of the text"):
        export_huggingface(small(), Reversed(CHARACTERS), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_without_transformers_it_is_said_that_nothing_was_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    export = export_huggingface(small(), CHAR, tmp_path / "out")
    assert export.proof is None
    assert "not compared with the model: transformers is not installed" in export.describe()
