"""The key `tokenizer`, from params.yaml to token files: names and paths."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpt2_vocabulary import gpt2_files
from hostile import TEXTS
from preparing import PREPARED, assert_one_line, run

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config.config import get_config
from nanogpt2.exchange.incoming.tokenizer_files import write_tokenizer
from nanogpt2.tokens.bpe.merges import train_from_texts
from nanogpt2.tokens.choice import check_tokenizer
from nanogpt2.tokens.files import open_tokenizer
from nanogpt2.tokens.normal import normalise
from nanogpt2.tokens.tokenizer import ByteTokenizer, read_tokenizer
from stages.prepare import main as prepare_stage
from stages.validate import main as validate_stage

TEXT = "".join(TEXTS).replace("\0", "")
TRAINED = train_from_texts([TEXT], 300, ["<|endoftext|>"])


@pytest.fixture(autouse=True)
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    Path("raw/a.txt").write_bytes(TEXT.encode())


def save_own(path: Path) -> None:
    path.write_text(json.dumps(TRAINED.to_dict()), encoding="utf-8")


def save_theirs(path: Path) -> None:
    write_tokenizer(TRAINED, path, block_size=8)


def save_pair(folder: Path) -> None:
    folder.mkdir()
    numbers = {token: number for number, token in enumerate(TRAINED.vocabulary)}
    (folder / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(TRAINED.merges), encoding="utf-8")


@pytest.mark.parametrize(
    ("save", "path"),
    [
        (save_own, "own.json"),
        (save_theirs, "theirs/tokenizer.json"),
        (save_theirs, "./theirs"),
        (save_pair, "./pair"),
    ],
)
def test_a_path_gives_the_tokens_of_what_is_there(save: Callable[[Path], None], path: str) -> None:
    save(Path(path.removesuffix("/tokenizer.json")))
    for stage in (validate_stage, prepare_stage):
        result = run(stage, tokenizer=path, vocab_size=300)
        assert result.exit_code == 0, result.output
    assert read_tokenizer(PREPARED / "tokenizer.json").to_dict() == TRAINED.to_dict()
    tokens = [np.fromfile(PREPARED / f"{name}.bin", "<u2") for name in ("train", "val")]
    assert TRAINED.decode(np.concatenate(tokens)) == normalise(TEXT)


@pytest.mark.parametrize(("name", "vocab_size"), [("bpe", 400), ("gpt2", 50_304)])
def test_a_name_gives_its_tokenizer(name: str, vocab_size: int) -> None:
    gpt2_files()
    for stage in (validate_stage, prepare_stage):
        result = run(stage, tokenizer=name, vocab_size=vocab_size)
        assert result.exit_code == 0, result.output
    trained = read_tokenizer(PREPARED / "tokenizer.json")
    assert trained.size == {"bpe": 400, "gpt2": 50_257}[name]
    tokens = [np.fromfile(PREPARED / f"{name}.bin", "<u2") for name in ("train", "val")]
    assert trained.decode(np.concatenate(tokens)) == normalise(TEXT)


def test_bpe_learns_from_the_training_text_alone() -> None:
    Path("raw/a.txt").write_text("abab " * 300 + "yzyz " * 300, encoding="utf-8")
    assert run(prepare_stage, tokenizer="bpe", vocab_size=1000).exit_code == 0
    trained = read_tokenizer(PREPARED / "tokenizer.json")
    made = {trained.token_bytes(token) for token in range(256, trained.size)}
    assert b"abab" in made
    assert not any(b"y" in token for token in made)


SPLIT = {"type": "Split", "pattern": {"Regex": r"\w+"}, "behavior": "Isolated", "invert": False}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"pre_tokenizer": SPLIT}, ("pre_tokenizer.type: found", '"Split"', "ByteLevel")),
        ({"normalizer": {"type": "NFC"}}, ("normalizer: found", "null")),
        ({"model": {"type": "WordPiece", "vocab": {}}}, ("model.type: found", "WordPiece", "BPE")),
        ({"model": {"type": "Unigram", "vocab": []}}, ("model.type: found", "Unigram", "BPE")),
    ],
    ids=["split", "normalizer", "wordpiece", "unigram"],
)
def test_what_is_none_of_ours_is_refused_in_one_line(
    change: dict[str, Any], parts: tuple[str, ...]
) -> None:
    save_theirs(Path("theirs"))
    path = Path("theirs/tokenizer.json")
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change))
    for stage in (validate_stage, prepare_stage):
        result = run(stage, tokenizer="./theirs", vocab_size=300)
        assert_one_line(result, "tokenizer: ", str(path), *parts)


def test_a_folder_without_tokenizer_files_and_a_damaged_file_are_refused() -> None:
    assert_one_line(
        run(validate_stage, tokenizer="./raw"), "tokenizer: raw: has no tokenizer", "tokenizer.json"
    )
    Path("own.json").write_text('{"name": "bpe"}', encoding="utf-8")
    assert_one_line(run(validate_stage, tokenizer="own.json"), "tokenizer: ", "not a tokenizer")


def test_the_file_of_prepare_can_be_given() -> None:
    assert run(prepare_stage, tokenizer="byte").exit_code == 0
    assert isinstance(open_tokenizer(PREPARED / "tokenizer.json"), ByteTokenizer)


@pytest.mark.parametrize("path", ["./own.json", "data/tokenizers/../own.json", "data/own.json"])
def test_the_pipeline_takes_tokenizers_from_where_it_sees_changes(path: str) -> None:
    check_tokenizer(get_config({"tokenizer": "char"}), in_pipeline=True)
    Path("data/tokenizers").mkdir(parents=True)
    for name in ("data/tokenizers/own.json", path):
        save_own(Path(name))
    inside = get_config({"tokenizer": "data/tokenizers/own.json", "vocab_size": 300})
    check_tokenizer(inside, in_pipeline=True)
    outside = get_config({"tokenizer": path, "vocab_size": 300})
    check_tokenizer(outside)
    with pytest.raises(ConfigError, match=r"^tokenizer: found .* allowed: a path in data/tokeniz"):
        check_tokenizer(outside, in_pipeline=True)
