"""The training guide's example as it stands, and what becomes of the file that it saves."""

import os
import subprocess
from pathlib import Path

import pytest
import warm
from imports import ROOT

EXAMPLE = """
import torch
from nanogpt2.config import get_config
from nanogpt2.dataset import CharDataset
from nanogpt2.model import GPT
from nanogpt2.trainer import Trainer

train_dataset = CharDataset(text, block_size=128)
config = get_config("nano", **fewer)
model = GPT(config)
trainer = Trainer(model, config)
trainer.train(train_dataset, val_dataset)
torch.save({"model_state_dict": model.state_dict(), "config": config}, "checkpoints/final_model.pt")
"""
PARAMS = """
corpus: text.txt
test_fraction: 0
evaluate: {memorisation_samples: 1, memorisation_tokens: 60}
sample: {prompt: "the ", max_new_tokens: 20, num_samples: 2}
"""


def stage(name: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [warm.executable(), "-m", f"stages.{name}", "--config", "my.yaml", *options]
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def saved(text: str) -> Path:
    """Run the guide's example on `text`, with few steps, in the current folder."""
    from nanogpt2.dataset import CharDataset

    names = {
        "text": text,
        "val_dataset": CharDataset(text[-400:], 128),
        "fewer": {"max_iters": 4, "eval_iters": 1, "batch_size": 4, "device": "cpu"},
    }
    exec(EXAMPLE, names)
    Path("text.txt").write_text(text, encoding="utf-8")
    Path("my.yaml").write_text(PARAMS, encoding="utf-8")
    return Path("checkpoints/final_model.pt")


def test_the_file_can_be_evaluated_and_sampled_from(saved: Path) -> None:
    assert stage("prepare").returncode == 0
    evaluated = stage("evaluate", "--checkpoint", str(saved))
    assert evaluated.returncode == 0, evaluated.stderr
    assert "val: loss" in evaluated.stdout
    sampled = stage("sample", "--checkpoint", str(saved))
    assert sampled.returncode == 0, sampled.stderr
    assert "holds no tokenizer: using data/prepared/tokenizer.json" in sampled.stderr
    text = Path("samples/sample_2.txt").read_text(encoding="utf-8")
    assert text.startswith("the ")
    assert len(text) == 4 + 20 + 1


def test_without_any_tokenizer_sampling_says_how_to_give_one(saved: Path) -> None:
    sampled = stage("sample", "--checkpoint", str(saved))
    assert sampled.returncode == 1
    assert sampled.stderr.splitlines() == [
        "the checkpoint holds no tokenizer: give --tokenizer the tokenizer.json of its text"
    ]
