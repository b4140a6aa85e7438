"""Fine-tuning through the pipeline: `init_from`, what it reruns, and going on after kill -9."""

import os
import signal
from pathlib import Path

import pytest
import torch
from every import in_every
from processes import start, states, training_process, wait_for
from workspace import SMALL_RUN, Workspace

from nanogpt2.base.system.files import read_json
from nanogpt2.model.checkpoint import load_checkpoint, load_tensors, save_tensors

BASE = "base.pt"
LORA = {"init_from": BASE, "lora_rank": 2, "dropout": 0.1, "max_iters": 24, "eval_interval": 12}
OFTEN = {"checkpoint_interval": 2, "gradient_accumulation_steps": 3, "eval_iters": 5}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace that has trained, with its last model put aside as base.pt."""
    workspace = Workspace.trained(tmp_path_factory.mktemp("finetune") / "project")
    last = (workspace.root / "checkpoints/final_model.pt").read_bytes()
    (workspace.root / BASE).write_bytes(last)
    workspace.commit("base")
    return workspace


def put(workspace: Workspace, **values: object) -> None:
    workspace.put(SMALL_RUN | values)


def origin(workspace: Workspace) -> dict[str, object]:
    return load_checkpoint(workspace.root / "checkpoints/final_model.pt", device="cpu").origin


def test_a_run_goes_on_from_weights_and_a_changed_number_in_them_reruns_it(
    workspace: Workspace,
) -> None:
    before = read_json(workspace.root / "metrics/train.json")
    put(workspace, init_from=BASE, n_embd=32)
    done = workspace.dvc("repro", "train")
    assert "as the weights of init_from have it: n_embd 16 (not 32)" in done
    train, val = (before[f"{split}_loss"] for split in ("train", "val"))
    assert f"iter 0: train loss {train:.4f}, val loss {val:.4f}" in done
    first = origin(workspace)["init"]

    base = load_tensors(workspace.root / BASE)
    weight = base["model_state_dict"]["wte.weight"]
    weight.view(torch.int32)[0, 0] ^= 1  # one bit
    save_tensors(workspace.root / BASE, base)
    assert workspace.stages_run("repro", "train") == ["init", "train"]
    assert origin(workspace)["init"] != first


def test_weights_that_are_not_there_are_refused_before_anything_is_removed(
    workspace: Workspace,
) -> None:
    kept = workspace.outputs()
    put(workspace, init_from="gpt2")
    done = workspace.run("dvc", "repro", check=False)
    assert done.returncode != 0
    assert "init_from: gpt2: no such file or folder; `python -m nanogpt2 import g" in done.stderr
    put(workspace, init_from="data/raw/sonnet.txt")
    done = workspace.run("dvc", "repro", check=False)
    assert "init_from: data/raw/sonnet.txt: damaged, or not a checkpoint" in done.stderr
    assert workspace.outputs() == kept


@in_every("a run that is killed and one with LoRA have a test each")
def test_killed_with_lora_it_goes_on_to_the_same_bytes(workspace: Workspace) -> None:
    put(workspace, **LORA, **OFTEN)
    process = start(workspace, "dvc", "repro", "train")
    assert wait_for(lambda: len(states(workspace)) > 1, process)
    victim = training_process(workspace)
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    process.communicate()
    assert "going on from iteration" in workspace.dvc("repro", "train")
    outputs = workspace.outputs()
    workspace.dvc("repro", "--single-item", "--force", "train")
    assert workspace.outputs() == outputs
    names = load_tensors(workspace.root / "checkpoints/best_model.pt")["model_state_dict"]
    assert set(names) == set(load_tensors(workspace.root / BASE)["model_state_dict"])
    assert Path(workspace.root, BASE).exists()
