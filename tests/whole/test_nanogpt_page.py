"""The page for those who come from nanoGPT has every option of its, and names that are here."""

import re

import pytest
from imports import ROOT

from nanogpt2.commands.generate import main as generate
from nanogpt2.config.config import get_config

PAGE = (ROOT / "docs/nanogpt.md").read_text(encoding="utf-8")
TRAINING, _, SAMPLING = PAGE.partition("## Sampling")
# Of its train.py and sample.py, commit 3adf61e.
TRAIN_OPTIONS = """
out_dir eval_interval log_interval eval_iters eval_only always_save_checkpoint init_from wandb_log
wandb_project wandb_run_name dataset gradient_accumulation_steps batch_size block_size n_layer
n_head n_embd dropout bias learning_rate max_iters weight_decay beta1 beta2 grad_clip decay_lr
warmup_iters lr_decay_iters min_lr backend device dtype compile
"""
SAMPLE_OPTIONS = """
init_from out_dir start num_samples max_new_tokens temperature top_k seed device dtype compile
"""


def rows(text: str) -> list[list[str]]:
    """Return the cells of each row of the tables in `text`."""
    lines = re.findall(r"(?m)^\| (.*) \|$", text)
    return [[cell.strip() for cell in line.split(" |")] for line in lines]


@pytest.mark.parametrize(
    ("part", "options"), [(TRAINING, TRAIN_OPTIONS), (SAMPLING, SAMPLE_OPTIONS)]
)
def test_every_option_of_its_has_a_row(part: str, options: str) -> None:
    first = " ".join(cells[0] for cells in rows(part))
    assert [name for name in options.split() if not re.search(rf"`{name}\b", first)] == []


def test_the_names_here_are_those_of_parameters_and_options() -> None:
    keys = get_config("nano").to_dict()
    named = [name for cells in rows(PAGE) for name in re.findall(r"`([a-z_.]+)`", cells[1])]
    inner = {f"sample.{key}" for key in keys["sample"]}
    assert len(named) > 30
    assert [name for name in named if name not in {*keys, *inner, "params.yaml"}] == []
    options = {flag for option in generate.params for flag in option.opts}
    used = [
        flag for cells in rows(SAMPLING) for flag in re.findall(r"`(--[\w-]+)", " ".join(cells))
    ]
    assert len(used) > 8
    assert set(used) <= options
