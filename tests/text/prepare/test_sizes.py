"""A corpus of any size: what is written depends on the text alone, not on how it is cut up."""

import json
import os
import random
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from imports import ROOT

from nanogpt2.__main__ import main as commands
from nanogpt2.base.system.errors import DataError
from nanogpt2.config.groups import CleanConfig
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.tokens.dataset import load_prepared_tokenizer, load_tokens

OPTIONS: dict[str, Any] = {"tokenizer": "char", "vocab_size": 6000, "fractions": (0.2, 0.1)}
SPLITS = ("train", "val", "test")


def write_text(path: Path, n_lines: int, seed: int) -> None:
    """Write lines of words in several scripts, with white space of all kinds between them."""
    draw = random.Random(seed)
    words = ["the", "don't", "we'll", "größer", "naïve", "字字。字", "12,345", "e\u0301", "🙂", "x"]
    between = [" ", " ", "  ", "\n", "\r\n", "\n\n", " \n", "\n ", "\t", "\u00a0", "\u2028", ". "]
    text = "".join(draw.choice(words) + draw.choice(between) for _ in range(8 * n_lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    write_text(raw / "a.txt", 400, 1)
    write_text(raw / "b/10.txt", 20, 2)
    write_text(raw / "b/9.txt", 150, 3)
    (raw / "c.txt").write_bytes(b"")
    records = [{"text": f"record {number}\nof several lines \n"} for number in range(300)]
    lines = "\n".join(map(json.dumps, records))
    (raw / "d.jsonl").write_text(lines, encoding="utf-8")
    return raw


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("changes"),
    [
        {},
        {"tokenizer": "byte", "separator": "\n---\n"},
        {"split": "contiguous", "clean": CleanConfig("auto", *["remove"] * 4)},
        {"tokenizer": "bpe", "vocab_size": 400, "separator": "<|endoftext|>"},
    ],
    ids=["documents", "bytes and a separator", "contiguous and cleaned", "byte pairs"],
)
def test_neither_blocks_nor_workers_change_what_is_written(
    changes: dict[str, Any], corpus: Path, tmp_path: Path
) -> None:
    prepare(corpus, tmp_path / "whole", **OPTIONS | changes)
    expected = written(tmp_path / "whole")
    cuts = [(4096, 2), (6000, 1), *[(1 << 14, 4)] * (not changes)]
    for block_bytes, workers in cuts:
        out = tmp_path / "blocks"
        prepare(corpus, out, **OPTIONS | changes, block_bytes=block_bytes, workers=workers)
        assert written(out) == expected


def test_documents_are_held_out_whole_and_stay_where_they_are(tmp_path: Path) -> None:
    raw, found = tmp_path / "raw", []
    for number in range(400):
        path = raw / f"{number}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{number} is the number of this document", encoding="utf-8")
        if number in (199, 399):
            description = prepare(raw, tmp_path / "out", **OPTIONS, separator="\n\n")
            assert (description["split"], description["documents"]) == ("documents", number + 1)
            tokenizer = load_prepared_tokenizer(tmp_path / "out")
            splits = {
                name: tokenizer.decode(load_tokens(tmp_path / "out", name)).split("\n\n")
                for name in SPLITS
            }
            expected = [f"{one} is the number of this document" for one in range(number + 1)]
            assert sorted(chain.from_iterable(splits.values())) == sorted(expected)
            found.append({document: name for name, each in splits.items() for document in each})
    assert found[0].items() <= found[1].items()
    shares = np.array([list(found[1].values()).count(name) for name in SPLITS]) / 400
    assert np.abs(shares - (0.7, 0.2, 0.1)).max() < 0.07


def test_few_documents_are_cut_into_contiguous_parts(tmp_path: Path) -> None:
    for number in range(99):
        write_text(tmp_path / f"raw/{number}.txt", 1, number)
    assert prepare(tmp_path / "raw", tmp_path / "out", **OPTIONS)["split"] == "contiguous"
    write_text(tmp_path / "raw/99.txt", 1, 99)
    assert prepare(tmp_path / "raw", tmp_path / "out", **OPTIONS)["split"] == "documents"
    kept = prepare(tmp_path / "raw", tmp_path / "out", **OPTIONS, split="contiguous")
    assert kept["split"] == "contiguous"


def test_near_copies_are_said_and_removed(tmp_path: Path) -> None:
    draw = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz     "
    own = "".join(draw.choice(letters) for _ in range(20_000))
    copy = [*own[2000:6000]]
    copy[::90] = "#" * len(copy[::90])
    (tmp_path / "a.txt").write_text(own + "".join(copy), encoding="utf-8")
    told = prepare(tmp_path / "a.txt", tmp_path / "out", **OPTIONS | {"fractions": (0.1, 0)})
    assert told["near_copies"]["val"]["in_train"] == pytest.approx(2400, abs=100)
    assert any("of the val split stand nearly so in the train split" in w for w in told["warnings"])
    cleaned = prepare(
        tmp_path / "a.txt",
        tmp_path / "out",
        **OPTIONS | {"fractions": (0.1, 0)},
        clean=CleanConfig(near_copies="remove"),
    )
    assert cleaned["removed"]["near_copies"]["characters"] == pytest.approx(4000, abs=100)
    assert cleaned["characters"] == 24_000 - cleaned["removed"]["near_copies"]["characters"]
    assert not any("stand nearly so" in warning for warning in cleaned["warnings"])


def test_held_out_text_of_which_a_later_document_is_a_copy_is_said_too(tmp_path: Path) -> None:
    draw = random.Random(1)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=6)) for _ in range(60_000)]
    texts = [" ".join(words[at : at + 300]) for at in range(0, 60_000, 300)]
    records = [{"text": text} for text in texts]
    options = {"fractions": (0.5, 0), "block_bytes": 4096}
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    assert (
        prepare(path, tmp_path / "out", **OPTIONS | options)["near_copies"]["val"]["in_train"] == 0
    )
    # a letter more at the beginning gives a copy another hash, and perhaps another split
    records += [{"text": "x" + text} for text in texts]
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    found = prepare(path, tmp_path / "out", **OPTIONS | options)["near_copies"]["val"]
    # of the documents of val half have their copy, or their original, in train
    assert found["in_train"] / (found["copied"] + found["unique"]) == pytest.approx(0.5, abs=0.1)


def test_what_a_killed_preparation_left_is_removed(tmp_path: Path) -> None:
    write_text(tmp_path / "raw/a.txt", 100, 1)
    left = tmp_path / ".out.killed"
    left.mkdir()
    (left / "lock").touch()
    (left / "segment").write_bytes(b"much")
    prepare(tmp_path / "raw", tmp_path / "out", **OPTIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def test_a_disk_that_cannot_hold_it_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.truncate(1 << 43)  # a hole: it takes no room itself
    with pytest.raises(
        DataError, match=r"MB of text take up to .* MB of disk here, and .* are free"
    ):
        prepare(path, tmp_path / "out", **OPTIONS)
    assert list(tmp_path.iterdir()) == [path]


# --- Several machines ---


def run_shards(corpus: Path, work: Path, out: Path, n: int, params: dict[str, Any]) -> None:
    """Prepare `corpus` in `n` shards, the last one first, each step as a command."""
    config = work.parent / "params.yaml"
    config.write_text(json.dumps({"corpus": str(corpus), "block_size": 8, **params}))
    shards = [f"{number}/{n}" for number in range(n, 0, -1)]
    steps = [*(("scan", each) for each in shards), ("settle", "1/1")]
    steps += [*(("encode", each) for each in shards), ("merge", "1/1")]
    for step, shard in steps:
        options = ["--work", str(work), "--config", str(config), "--out", str(out)]
        done = CliRunner().invoke(
            commands, ["shards", step, "--shard", shard, "--workers", "1", *options]
        )
        assert done.exit_code == 0, done.output


def test_shards_put_together_are_the_bytes_of_one_machine(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {"tokenizer": "bpe", "vocab_size": 400, "separator": "<|endoftext|>"}
    params |= {"val_fraction": 0.2, "test_fraction": 0.1}
    monkeypatch.setattr("nanogpt2.text.shards.shared.BLOCK_BYTES", 4096)
    run_shards(corpus, tmp_path / "work", tmp_path / "out", 3, params)
    prepare(
        corpus,
        tmp_path / "one",
        **OPTIONS | {"tokenizer": "bpe", "vocab_size": 400},
        separator="<|endoftext|>",
    )
    assert written(tmp_path / "out") == written(tmp_path / "one")


def test_a_step_of_shards_says_what_is_missing_or_another(corpus: Path, tmp_path: Path) -> None:
    config = tmp_path / "params.yaml"
    config.write_text(json.dumps({"corpus": str(corpus), "vocab_size": 1000}))

    def fails(*arguments: str, work: Path = tmp_path / "work") -> str:
        options = ["--work", str(work), "--config", str(config), "--workers", "1"]
        done = CliRunner().invoke(commands, ["shards", *arguments, *options])
        assert (done.exit_code, done.stdout) == (1, ""), done.exception
        return done.stderr

    for step in ("scan", "settle", "encode", "merge"):
        line = f"{config}: a file; allowed: a folder that all machines see\n"
        assert fails(step, work=config) == line
    assert f"{config / 'work'}: cannot be written" in fails("scan", work=config / "work")
    assert "scan is not done for the parts 0; do that step of each shard first" in fails("settle")
    assert "settled.npz: missing or damaged; do its step again" in fails("encode")
    for shard in ("4/3", "0/1", "1", "1/10001", f"1/{10**12}", "1/" + "9" * 5000):
        found = fails("scan", "--shard", shard)
        assert f"shard: found {shard}; allowed: 1/n to n/n, such as 2/3, n at most 10,000" in found
    config.write_text(json.dumps({"corpus": str(corpus), "vocab_size": 1001}))
    assert "a preparation of another corpus or with other parameters is there" in fails("settle")


def test_the_example_of_three_workers_in_the_documents_gives_the_bytes_of_one(
    corpus: Path, tmp_path: Path
) -> None:
    pytest.importorskip("distributed", reason="needs: pip install distributed")
    code = (ROOT / "docs/scaling.md").read_text("utf-8").partition("```py\n")[2].partition("```")[0]
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    params = {"corpus": str(corpus), "vocab_size": 6000, "val_fraction": 0.2, "test_fraction": 0.1}
    (tmp_path / "params.yaml").write_text(json.dumps({**params, "block_size": 8}))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    subprocess.run([sys.executable, "example.py"], cwd=tmp_path, env=environment, check=True)
    prepare(corpus, tmp_path / "one", **OPTIONS)
    assert written(tmp_path / "data/prepared") == written(tmp_path / "one")
