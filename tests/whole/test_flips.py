"""One bit flipped in a file of ours: the file is refused by name, or holds what it held before."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nanogpt2.base.system import checksums
from nanogpt2.base.system.errors import NanoGPT2Error
from nanogpt2.commands.shared.unfinished import load_unfinished
from nanogpt2.config.config import Config, get_config
from nanogpt2.exchange.incoming.pretrained import load_pretrained
from nanogpt2.model.checkpoint import (
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
    tokenizer_of,
)
from nanogpt2.model.gpt import GPT
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.tokens.dataset import (
    load_prepared_tokenizer,
    load_split,
    prepared_splits,
    text_of_split,
)
from nanogpt2.tokens.tokenizer import CharTokenizer
from nanogpt2.train.trainer import Trainer

Read = Callable[[Path], Any]


def equal(one: Any, other: Any) -> bool:
    """Return whether two plain values with tensors in them are equal to the bit, order included."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.equal(other)
    if isinstance(one, dict):
        return isinstance(other, dict) and equal(list(one.items()), list(other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and bool(one == other)


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def places(size: int, count: int, generator: random.Random) -> list[int]:
    """Return numbers of bits: half of them in the first and last 300 bytes, where formats live."""
    edges = [*range(min(300, size // 2)), *range(max(size // 2, size - 300), size)]
    bytes_ = [*generator.choices(edges, k=count // 2), *generator.choices(range(size), k=count)]
    return [8 * place + generator.randrange(8) for place in bytes_[:count]]


def try_flips(paths: list[Path], read: Read, *, count: int) -> int:
    """Flip `count` bits of each file, one at a time; return how many made no difference.

    `read` gets the file. What it raises names the file in one line; else it returns what it did
    before.
    """
    generator, harmless = random.Random(1), 0
    for path in paths:
        whole, expected = path.read_bytes(), read(path)
        for bit in places(len(whole), count, generator):
            flip(path, bit)
            line, found = "", None
            try:
                found = read(path)
            except NanoGPT2Error as error:
                line = str(error)
            named = path.name in line and "\n" not in line
            assert named or equal(found, expected), (path, bit, line)
            harmless += not named
            path.write_bytes(whole)
    return harmless


@pytest.fixture
def checkpoint(tiny: Config, text: str) -> Path:
    known = CharTokenizer.train(text)
    save_checkpoint("best.pt", GPT(tiny).state_dict(), tiny, tokenizer=known, origin={"iter": 1})
    return Path("best.pt")


def test_no_flipped_bit_of_a_checkpoint_is_taken_for_whole(checkpoint: Path) -> None:
    assert try_flips([checkpoint], load_tensors, count=300) == 0


def test_no_flipped_bit_of_a_state_is_taken_for_whole(tiny: Config, text: str) -> None:
    Path("text.txt").write_text(text, encoding="utf-8")
    prepare("text.txt", "data", tokenizer="char", vocab_size=64, fractions=(0.2, 0.1))
    train, val = (load_split("data", name, 16) for name in ("train", "val"))
    config = get_config(tiny, checkpoint_interval=2)
    trainer = Trainer(GPT(config), config, resume_root=Path(".resume"))
    kept: list[Path] = []

    def keep(*_: object) -> None:
        state = max(Path(".resume").glob("*/*-*.pt"))
        Path("states").mkdir()
        kept.append(state.rename(Path("states", state.name)))

    def read(path: Path) -> Any:
        return load_unfinished(path).model.state_dict()

    trainer.train(train, val, save=keep)
    assert try_flips(kept, read, count=250) == 0


def test_no_flipped_bit_of_prepared_data_is_taken_for_whole(text: str) -> None:
    Path("text.txt").write_text(text, encoding="utf-8")
    prepare("text.txt", "data", tokenizer="char", vocab_size=64, fractions=(0.2, 0.1))

    def read(path: Path) -> Any:
        splits = {
            name: (load_split("data", name, 16).tokens.tolist(), text_of_split("data", name))
            for name in prepared_splits("data")
        }
        return splits, load_prepared_tokenizer("data").to_dict()

    paths = sorted(Path("data").iterdir())
    assert [path.name for path in paths] == [
        *("dataset.json", "test.bin", "tokenizer.json", "train.bin", "val.bin")
    ]
    assert try_flips(paths, read, count=50) < 5  # letters of a \uXXXX escape, say


def test_no_flipped_bit_of_a_folder_with_a_list_is_taken_for_whole() -> None:
    Path("out").mkdir()
    Path("out/model.safetensors").write_bytes(random.Random(1).randbytes(2000))
    Path("out/config.json").write_text('{"n_layer": 1, "n_embd": 16}', encoding="utf-8")
    names = ["config.json", "model.safetensors"]
    checksums.write_sealed("out/export.json", {"files": checksums.hash_files("out", names)})

    def read(path: Path) -> Any:
        checksums.check_files("out", "export.json")
        return {path.name: path.read_bytes() for path in sorted(Path("out").glob("[cm]*"))}

    paths = sorted(Path("out").iterdir())
    assert try_flips(paths, read, count=70) < 5


def test_no_flipped_bit_of_a_file_saved_by_hand_changes_what_is_loaded(tiny: Config) -> None:
    torch.save({"model_state_dict": GPT(tiny).state_dict(), "config": tiny.to_dict()}, "hand.pt")
    assert load_checkpoint("hand.pt", device="cpu").origin == {}
    assert try_flips([Path("hand.pt")], load_tensors, count=200) < 100  # dates, padding


def test_a_weight_of_a_file_saved_by_hand_that_is_marked_as_a_folder_is_refused(
    tiny: Config,
) -> None:
    torch.save({"model_state_dict": GPT(tiny).state_dict(), "config": tiny.to_dict()}, "hand.pt")
    content = bytearray(Path("hand.pt").read_bytes())
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/3"))
    content[entry + 38] ^= 0x10  # torch would return memory that nobody wrote to
    Path("hand.pt").write_bytes(content)
    with pytest.raises(NanoGPT2Error, match=r"hand.pt: damaged"):
        load_tensors("hand.pt")


def test_a_checkpoint_is_still_what_torch_loads_and_its_bytes_depend_on_its_content(
    checkpoint: Path,
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    assert torch.load(checkpoint, weights_only=True, mmap=True)["origin"] == {"iter": 1}
    save_tensors("again.pt", content)
    assert Path("again.pt").read_bytes() == checkpoint.read_bytes()


def test_a_tokenizer_in_a_file_of_its_own_is_checked(tiny: Config, text: str) -> None:
    save_checkpoint("bare.pt", GPT(tiny).state_dict(), tiny, tokenizer=None, origin={})
    bare = load_checkpoint("bare.pt", device="cpu")
    checksums.write_sealed("t.json", CharTokenizer.train("abc").to_dict())
    assert tokenizer_of(bare, "t.json").size == 3
    Path("t.json").write_bytes(Path("t.json").read_bytes().replace(b"abc", b"abd"))
    with pytest.raises(NanoGPT2Error, match=r"^t.json: damaged: its checksum is not that of"):
        tokenizer_of(bare, "t.json")
    Path("t.json").write_text('{"name": "char", "characters": "abd"}', encoding="utf-8")
    assert tokenizer_of(bare, "t.json").size == 3


def test_an_export_is_looked_at_before_it_is_read_back() -> None:
    Path("out").mkdir()
    Path("out/config.json").write_text('{"n_layer": 1}', encoding="utf-8")
    listed = {"files": checksums.hash_files("out", ["config.json"])}
    checksums.write_sealed("out/export.json", listed)
    flip(Path("out/config.json"), 8 * 12)
    with pytest.raises(NanoGPT2Error, match=r"^out/config.json: damaged: its SHA-256 is not"):
        load_pretrained("out")
