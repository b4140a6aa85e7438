"""Copies of a model run and are the same, whatever made them; and so are files of other times."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config.config import Config
from nanogpt2.model.checkpoint import load_checkpoint
from nanogpt2.model.gpt import GPT, unwrapped

CPU = torch.device("cpu")
IDX = torch.arange(10)[None]


def saved_whole(model: GPT) -> GPT:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded: GPT = torch.load(file, weights_only=False)
    return loaded


@pytest.mark.parametrize(
    "make_copy",
    [
        lambda model: pickle.loads(pickle.dumps(model)),  # what a spawned process receives
        saved_whole,
        copy.deepcopy,
        copy.copy,
    ],
    ids=["pickle", "torch.save", "deepcopy", "copy"],
)
def test_a_copy_runs_and_is_the_same(tiny: Config, make_copy: Callable[[GPT], GPT]) -> None:
    model = GPT(tiny)
    other = make_copy(model)
    assert other.config == model.config
    assert torch.equal(other(IDX), model(IDX))
    assert torch.equal(other.generate(IDX, 2, 0.0), model.generate(IDX, 2, 0.0))


def test_a_configuration_stays_one_but_in_a_file_for_torch(tiny: Config) -> None:
    assert pickle.loads(pickle.dumps(tiny)) == tiny
    assert copy.copy(tiny) == copy.deepcopy(tiny) == tiny
    file = io.BytesIO()
    torch.save({"config": tiny}, file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["config"] == tiny.to_dict()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile's own
def test_what_is_wrapped_around_a_model_is_taken_off(tiny: Config) -> None:
    model = GPT(tiny)
    compiled: Any = torch.compile(model)
    assert unwrapped(model) is unwrapped(compiled) is model
    assert unwrapped(torch.nn.DataParallel(model)) is model
    with pytest.raises(ConfigError, match="a GPT is needed, and this is a Linear"):
        unwrapped(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_that_a_wrapper_has_lengthened_are_known(tiny: Config, prefix: str) -> None:
    model = GPT(tiny)
    weights = {prefix + name: value for name, value in model.state_dict().items()}
    torch.save({"model_state_dict": weights, "config": tiny}, "wrapped.pt")
    loaded = load_checkpoint(Path("wrapped.pt"), device=CPU).model
    assert torch.equal(loaded(IDX), model(IDX))


def test_the_format_of_torch_before_its_archives_is_read(tiny: Config) -> None:
    model = GPT(tiny)
    content = {"model_state_dict": model.state_dict(), "config": tiny}
    torch.save(content, "old.pt", _use_new_zipfile_serialization=False)
    loaded = load_checkpoint(Path("old.pt"), device=CPU).model
    assert torch.equal(loaded(IDX), model(IDX))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_narrow_weights_are_computed_with_in_float32(tiny: Config, dtype: torch.dtype) -> None:
    weights = {name: value.to(dtype) for name, value in GPT(tiny).state_dict().items()}
    torch.save({"model_state_dict": weights, "config": tiny}, "narrow.pt")
    loaded = load_checkpoint(Path("narrow.pt"), device=CPU).model
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.wte.weight, weights["wte.weight"].float())
