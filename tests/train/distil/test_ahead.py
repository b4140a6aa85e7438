"""The loss on the token after the next: its value, its share, and that no model file has it."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from crashing import CrashError, train
from torch import Tensor, nn

from nanogpt2.config.config import Config, get_config
from nanogpt2.model.checkpoint import hash_weights
from nanogpt2.model.gpt import GPT
from nanogpt2.train.distil.ahead import LookingAhead, add_ahead, ahead_share
from nanogpt2.train.distil.follow import Objective


@pytest.fixture
def config(tiny: Config) -> Config:
    changes = {"mtp_weight": 0.5, "architecture": "modern", "zero_init": False, "max_iters": 12}
    return get_config({**tiny.to_dict(), **changes, "checkpoint_interval": 1})


def test_it_is_the_cross_entropy_of_the_token_after_the_next(config: Config) -> None:
    model = GPT(config)
    add_ahead(model, config)
    matrix = model.get_parameter("ahead.weight")
    nn.init.normal_(matrix, std=0.2)
    objective = LookingAhead(Objective(), config, torch.device("cpu"))
    text = torch.randint(0, config.vocab_size, (3, config.block_size + 1))
    idx, targets = text[:, :-1], text[:, 1:]
    for step, share in ((0, 0.5), (3, 0.25), (6, 0.0), (11, 0.0)):
        objective.begin(step)
        assert ahead_share(step, config) == share
        hidden = model.hidden(idx)
        after_next = model.head(hidden[:, :-1] @ matrix.mT)
        expected = F.cross_entropy(model.head(hidden).flatten(0, 1), targets.flatten())
        expected = expected + share * F.cross_entropy(
            after_next.flatten(0, 1), targets[:, 1:].flatten()
        )
        loss = objective.loss(model, idx, targets)
        torch.testing.assert_close(loss, expected)
        gradients: list[list[Tensor]] = []
        for each in (loss, expected):
            model.zero_grad(set_to_none=True)
            each.backward(retain_graph=True)  # type: ignore[no-untyped-call]
            gradients.append([p.grad for p in model.parameters() if p.grad is not None])
        if not share:  # the matrix has no gradient, or one of zeros
            gradients[1].pop()
        torch.testing.assert_close(*gradients)


def test_it_changes_what_is_learnt_and_is_no_part_of_the_model(config: Config, text: str) -> None:
    model = train(config, text)[0].model
    plain = train(get_config({**config.to_dict(), "mtp_weight": 0.0}), text)[0].model
    assert list(model.state_dict()) == list(plain.state_dict())
    assert hash_weights(model.state_dict()) != hash_weights(plain.state_dict())


@pytest.mark.parametrize("crash", [3, 9])
def test_a_resumed_run_has_the_weights_of_an_unbroken_one(
    config: Config, text: str, crash: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    unbroken = hash_weights(train(config, text)[0].model.state_dict())
    with pytest.raises(CrashError):
        train(config, text, crash=crash)
    assert hash_weights(train(config, text)[0].model.state_dict()) == unbroken
