"""`python -m nanogpt2 tokenizer`: a table of tokenizers, and the best into params.yaml."""

import itertools
import math
from pathlib import Path

import pytest
from click.testing import CliRunner
from imports import ROOT

from nanogpt2.__main__ import main
from nanogpt2.config import yaml12
from nanogpt2.config.config import get_config
from nanogpt2.experiments.candidates import compare_tokenizers, train_for
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.train.batches import Batches
from nanogpt2.train.step import Stepper

SMALL = {
    "n_layer": 1,
    "n_head": 1,
    "n_embd": 16,
    "block_size": 8,
    "compile": False,
    "device": "cpu",
}


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    Path("raw/a.txt").write_text("The quick brown fox, naïve, jumps.\n" * 300, encoding="utf-8")
    changes = {**SMALL, "corpus": "raw", "tokenizer": "auto"}
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(yaml12.replace_values(text, changes), encoding="utf-8")
    return Path("params.yaml")


def compare(params: Path, *, write: bool) -> list[str]:
    lines: list[str] = []
    compare_tokenizers(params, seconds=0.05, write=write, show=lines.append, sizes=(260, 9999))
    return "\n".join(lines).splitlines()


def test_the_best_in_bits_per_byte_is_written_and_nothing_else(params: Path) -> None:
    before = yaml12.read(params)
    lines = compare(params, write=True)
    assert lines[0] == "3 tokenizers, each trained with for 0.05 s"  # the text has no 9999
    assert lines[1].split()[-2:] == ["loss/token", "bits/byte"]
    rows = [line.split() for line in lines[2:5]]
    assert [row[:2] for row in rows] == [["char", "256"], ["byte", "256"], ["bpe", "260"]]
    for _, _, length, steps, loss, bits in rows:
        assert int(steps) > 0
        assert float(bits) == pytest.approx(float(loss) / float(length) / math.log(2), rel=1e-2)
    best = min(rows, key=lambda row: float(row[-1]))
    assert lines[5] == f"best: tokenizer {best[0]}, vocab_size {best[1]}"
    assert lines[6] == f'tokenizer: "auto" -> "{best[0]}"'
    expected = {**before, "tokenizer": best[0], "vocab_size": int(best[1])}
    assert yaml12.read(params) == expected
    assert get_config(params).tokenizer == best[0]


def test_a_dry_run_leaves_the_file_alone(params: Path) -> None:
    before = params.read_bytes()
    assert compare(params, write=False)[-1].startswith("best: ")
    assert params.read_bytes() == before


def test_trained_weights_have_their_tokenizer(params: Path) -> None:
    text = yaml12.replace_values(params.read_text(encoding="utf-8"), {"init_from": "gpt2"})
    params.write_text(text, encoding="utf-8")
    result = CliRunner().invoke(main, ["tokenizer", "--seconds", "1"])
    assert result.exit_code == 1
    assert result.stderr.startswith("init_from: found gpt2; allowed: scratch")
    assert len(result.stderr.splitlines()) == 1


def test_training_for_seconds_goes_through_the_whole_schedule() -> None:
    config = get_config({**SMALL, "max_iters": 1_000_000, "warmup_iters": 0, "learning_rate": 1e-2})
    stepper, rates = Stepper(GPT(config), config), list[float]()
    dataset = TokenDataset(list(range(40)), config.block_size)

    def clock() -> float:  # a step takes a tenth of a second
        rates.append(stepper.optimizers[-1].param_groups[0]["lr"])
        return 0.1 * len(rates)

    steps = train_for(stepper, dataset, 5.0, clock=clock)
    assert steps == len(rates) == 4 + 50  # the first four are not timed
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.15 * rates[0]


def test_training_for_seconds_takes_each_token_equally_often() -> None:
    config = get_config({**SMALL, "max_iters": 1_000_000, "warmup_iters": 0})
    stepper, dataset = (
        Stepper(GPT(config), config),
        TokenDataset(list(range(40)), config.block_size),
    )
    seconds = itertools.count()
    train_for(stepper, dataset, 5.0, clock=lambda: next(seconds), untimed=0)
    usual = Batches(config.seed, stepper.device, sampling=config.sampling)
    count = stepper.windows_per_step
    following = stepper.batches.draw(dataset, count, 999_999)
    assert following.tolist() == usual.draw(dataset, count, 5).tolist()
