"""How well sampling uses the speed of the memory, in a line that says what a step read."""

import time
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from nanogpt2.__main__ import main
from nanogpt2.config.config import Config, get_config
from nanogpt2.decode.ensemble.ensemble import Ensemble
from nanogpt2.model.checkpoint import save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.sample import bandwidth
from nanogpt2.sample.bandwidth import describe_use, measure_bandwidth, weights_read
from nanogpt2.sample.sample import Meter, Sampler
from nanogpt2.tokens.tokenizer import ByteTokenizer


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "BYTES", {"cpu": 2**20})


def test_a_step_reads_each_matrix_once_in_the_bytes_that_it_has(tiny: Config) -> None:
    model = GPT(get_config({**tiny.to_dict(), "architecture": "gpt2"}))
    C, V = model.config.n_embd, model.config.vocab_size
    count = model.config.n_layer * 12 * C * C + V * C
    assert weights_read(model) == 4 * count
    assert weights_read(model, int8=True) == count
    assert weights_read(model.bfloat16()) == 2 * count
    assert weights_read(Ensemble([model, model])) == 4 * count


def test_the_use_is_what_steps_read_over_what_the_memory_gives(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GPT(get_config({**tiny.to_dict(), "architecture": "gpt2"}))
    size = weights_read(model)
    monkeypatch.setattr(bandwidth, "measure_bandwidth", lambda device: 200.0 * size)
    meter = Meter()
    meter.add(6, 3.0)  # with the prompts, which are no step
    for _ in range(100):
        meter.add(6, 0.02, steps=1)
    line = describe_use(model, meter)
    assert line == (
        f"speed: 20 ms a step, 6 tokens each; {size / 1e6:.1f} MB of weights"
        f" at {200 * size / 1e9:.1f} GB/s, MBU 25%"
    )
    assert describe_use(model, Meter()) == "speed: no step followed the first token"


def test_a_meter_counts_drawing_alone_and_first_tokens_as_no_steps(tiny: Config) -> None:
    sampler = Sampler(GPT({**tiny.to_dict(), "vocab_size": 256}), ByteTokenizer(), 5)
    meter = Meter()
    for _ in sampler.stream(["ab", "cd"], seed=1, meter=meter, chunk=1):
        time.sleep(0.2)
    assert (meter.tokens, meter.steps, meter.tokens_of_steps) == (10, 4, 8)
    assert 0 < meter.seconds_of_steps < meter.seconds < 5 * 0.2


@pytest.mark.usefixtures("quick")
def test_the_memory_is_read_at_a_speed_that_a_machine_has() -> None:
    assert 1e8 < measure_bandwidth(torch.device("cpu")) < 1e13


@pytest.mark.usefixtures("quick")
def test_generate_says_it_where_one_asks(tiny: Config, tmp_path: Path) -> None:
    model = GPT({**tiny.to_dict(), "vocab_size": 256})
    path = tmp_path / "model.pt"
    save_checkpoint(path, model.state_dict(), model.config, tokenizer=ByteTokenizer(), origin={})
    given = ["generate", f"--checkpoint={path}", "--max-new-tokens=20", "--speed"]
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("ab\ncd\nef\n")
    for options, each in ((["--prompt=ab"], "1 token"), ([f"--prompts={prompts}"], "3 tokens")):
        done = CliRunner().invoke(main, [*given, *options])
        assert done.exit_code == 0, done.stderr
        assert f" ms a step, {each} each; 0.0 MB of weights at " in done.stderr
    done = CliRunner().invoke(main, [*given, "--interactive"])
    assert done.exit_code == 2
    assert "--speed is of one request: it takes no --interactive" in done.stderr
