"""ONNX: onnxruntime computes what the model does, for batches and lengths of any size."""

import copy
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import TINY
from every import in_every, some
from variants import warmed

from nanogpt2.__main__ import main
from nanogpt2.base.system.errors import CheckpointError, DataError, ExtraError
from nanogpt2.config.config import Config, get_config
from nanogpt2.exchange.export import onnx_out
from nanogpt2.exchange.export.onnx_out import export_onnx
from nanogpt2.model.checkpoint import Checkpoint, save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.tokenizer import CharTokenizer

TOKENIZER = CharTokenizer("".join(map(chr, range(64))))
# Each variant of each part is in one of them: an export takes seconds.
MIXTURES: dict[str, dict[str, object]] = {
    "gpt2": {},
    "modern, relu2": {"architecture": "modern", "n_kv_head": 1, "mlp": "relu2", "mlp_conv": 4},
    "swiglu, rotary, no bias": {"mlp": "swiglu", "positions": "rotary", "bias": False},
}


class Made(NamedTuple):
    """A model, the export of it, and what the command said."""

    model: GPT
    path: Path
    said: Result


def mixture_of(name: str) -> GPT:
    return warmed(get_config({**TINY, "n_layer": 1, **MIXTURES[name]}))


def checkpoint_of(model: GPT) -> Checkpoint:
    return Checkpoint(model.eval(), TOKENIZER, {})


@pytest.fixture(scope="module", params=some(MIXTURES, "modern, relu2"))
def mixture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Export one of them by the command."""
    pytest.importorskip("onnxruntime")
    model = mixture_of(request.param)
    folder = tmp_path_factory.mktemp("onnx")
    weights, checkpoint, path = model.state_dict(), folder / "model.pt", folder / "other.onnx"
    save_checkpoint(checkpoint, weights, model.config, tokenizer=TOKENIZER, origin={})
    options = ["--checkpoint", str(checkpoint), "--to", "onnx", str(path)]
    return Made(model.eval(), path, CliRunner().invoke(main, ["export", *options]))


def test_logits_are_ours_for_any_batch_and_length(mixture: Made) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(mixture.path), providers=["CPUExecutionProvider"])
    for shape in ((1, 1), (1, 2), (2, 16), (5, 7)):
        idx = torch.randint(64, shape)
        with torch.no_grad():
            expected = mixture.model(idx).numpy()
        (logits,) = session.run(None, {"idx": idx.numpy()})
        np.testing.assert_allclose(logits, expected, atol=5e-5, rtol=0)


def test_no_path_of_the_source_is_in_the_file(mixture: Made) -> None:
    content = mixture.path.read_bytes()
    assert b".py" not in content
    assert b"nanogpt2" not in content


def test_the_command_says_how_exact_it_is(mixture: Made) -> None:
    done = mixture.said
    assert done.exit_code == 0
    opset, logits, greedy, note = done.stdout.splitlines()
    assert done.stderr.endswith(f" -> {mixture.path}\n")
    assert opset == "onnx: opset 18"
    found = re.match(r"onnxruntime \S+: logits .* differ by at most ([\d.e-]+)", logits)
    assert found is not None, logits
    assert float(found[1]) < 5e-5
    assert greedy == "greedy text: 15 of 15 tokens are the same"
    assert "block_size" in note


@in_every("it takes exports of two mixtures more")
def test_the_same_model_gives_the_same_file(mixture: Made, tmp_path: Path) -> None:
    again, other = tmp_path / "again.onnx", tmp_path / "other.onnx"
    export_onnx(checkpoint_of(mixture.model), TOKENIZER, again)
    assert again.read_bytes() == mixture.path.read_bytes()
    another = get_config(mixture.model.config, seed=7)
    export_onnx(checkpoint_of(warmed(another)), TOKENIZER, other)
    assert other.read_bytes() != again.read_bytes()


def test_what_computes_something_else_is_refused(mixture: Made) -> None:
    other = copy.deepcopy(mixture.model)
    with torch.no_grad():
        other.wte.weight[:, 5] += 1e-2
    with pytest.raises(CheckpointError, match=r"onnxruntime .* something else: logits differ by"):
        onnx_out.prove_onnx(other, mixture.path.read_bytes(), n_tokens=64)


def test_a_missing_library_is_named_with_what_brings_it(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ExtraError, match=r"onnxscript is not installed: .*nanogpt2\[onnx\]"):
        export_onnx(checkpoint_of(GPT(tiny)), TOKENIZER, "model.onnx")
    assert not Path("model.onnx").exists()


def test_a_folder_that_cannot_be_written_is_said_at_once(tiny: Config) -> None:
    Path("model.onnx").mkdir()
    with pytest.raises(DataError, match=r"model\.onnx: cannot be written: it is a folder"):
        export_onnx(checkpoint_of(GPT(tiny)), TOKENIZER, "model.onnx")


def test_a_model_too_large_for_one_file_is_refused() -> None:
    shape: dict[str, Any] = {"n_layer": 48, "n_head": 25, "n_embd": 1600, "vocab_size": 50257}
    with torch.device("meta"):
        model = GPT(get_config({**shape, "device": "cpu"}))
    with pytest.raises(CheckpointError, match=r"bytes of weights; allowed: 2,147,483,647 in one"):
        onnx_out.serialise(model)
