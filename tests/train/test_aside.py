"""States written in the background: what they hold is what the run had when they were begun."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from nanogpt2.base.system.errors import DataError
from nanogpt2.model.checkpoint import load_tensors
from nanogpt2.train.unfinished.aside import StateWriter
from nanogpt2.train.unfinished.resume import StateFiles

CPU = torch.device("cpu")
MPS = torch.device("mps")  # a device of which nothing is copied


class HeldFiles(StateFiles):
    """Files that are written only once that is allowed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.allowed = Event()

    def write(self, step: int, content: Mapping[str, Any]) -> None:
        self.allowed.wait(20)
        super().write(step, content)


@pytest.fixture
def files(tmp_path: Path) -> Iterator[HeldFiles]:
    held = HeldFiles(tmp_path / "run")
    with held.locked():
        yield held


def make_state() -> dict[str, Any]:
    """Return a state as optimizers and models have them."""
    wide = torch.arange(60.0)
    weights = OrderedDict(a=wide.view(6, 10), b=wide.view(6, 10)[1:, ::2].T, none=torch.empty(0))
    weights._metadata = {"version": 1}  # type: ignore[attr-defined]
    groups = [{"betas": (0.9, torch.tensor(0.5)), "params": [0, 1]}]
    return {
        "stepper": {"model": weights, "optimizers": [{"state": {0: wide[3:7]}, "groups": groups}]},
        "record": {"step": 4, "history": [{"iter": 2, "loss": 0.5}], "best": wide.clone().half()},
    }


def change(state: dict[str, Any]) -> None:
    """Do to a state what the steps after it do."""
    state["stepper"]["model"]["a"].zero_()
    state["stepper"]["optimizers"][0]["groups"][0]["betas"][1].zero_()
    state["record"]["history"].append({"iter": 4, "loss": 0.4})


def test_a_state_that_changes_while_it_is_written_has_the_bytes_of_one_that_does_not(
    files: HeldFiles, tmp_path: Path
) -> None:
    whole = StateFiles(tmp_path / "whole")
    with whole.locked():
        whole.save(4, make_state())
    writer = StateWriter(files, CPU)
    for _ in range(2):  # into memory that is new, and used before
        files.allowed.clear()
        state = make_state()
        writer.begin(4, state)
        change(state)
        assert not files.paths()
        assert writer.ended(waiting=False) is None
        files.allowed.set()
        assert writer.ended(waiting=True) is None
        (path,) = files.paths()
        assert path.name == whole.paths()[0].name  # which has the SHA-256
        assert path.read_bytes() == whole.paths()[0].read_bytes()
        path.unlink()
    writer.close()


def test_what_shares_memory_shares_it_in_the_state_that_is_read(files: HeldFiles) -> None:
    files.allowed.set()
    writer = StateWriter(files, CPU)
    writer.begin(4, make_state())
    writer.close()
    model = load_tensors(files.paths()[0])["stepper"]["model"]
    assert torch.equal(model["b"], model["a"][1:, ::2].T)
    model["a"].zero_()
    assert not model["b"].any()


def test_without_memory_for_a_copy_the_run_waits(files: HeldFiles) -> None:
    files.allowed.set()
    writer = StateWriter(files, MPS)
    writer.begin(4, make_state())
    assert files.paths()
    writer = StateWriter(files, CPU)
    writer.make_room(2**60)
    assert writer.ended(waiting=True) is None
    writer.begin(5, make_state())
    assert writer.ended(waiting=True) is None
    assert len(files.paths()) == 2


def test_an_error_is_told_once(files: HeldFiles) -> None:
    files.allowed.set()
    writer = StateWriter(files, CPU)
    (files.folder / "partial").mkdir()  # where the state is to be written
    writer.begin(4, make_state())
    error = writer.ended(waiting=True)
    assert isinstance(error, DataError)
    assert "cannot be written" in str(error)
    assert writer.ended(waiting=True) is None
    (files.folder / "partial").rmdir()
    writer.begin(5, make_state())
    assert writer.ended(waiting=True) is None
    writer.close()


def test_what_a_killed_process_had_written_of_a_state_is_removed(files: HeldFiles) -> None:
    files.allowed.set()
    files.save(4, make_state())
    half = files.folder / ".partial.0123abcd"
    half.write_bytes(b"half of a state")
    state, warnings = files.load()
    assert state is not None
    assert not warnings
    assert not half.exists()
