"""Every variant of the model and of its training keeps what a language model promises."""

import math
from pathlib import Path

import pytest
import torch
from every import some
from torch import Tensor
from variants import VARIANTS, warmed

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config.config import Config, get_config
from nanogpt2.decode.kernels.choose import prepare
from nanogpt2.model.checkpoint import load_checkpoint, save_tensors
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.optimizers.rates import learning_rate_factor
from nanogpt2.train.trainer import Trainer

MIXED = ["gpt2", "modern, conv", "modern, some"]  # which have most between them


@pytest.fixture(params=list(VARIANTS.values()), ids=list(VARIANTS))
def variant(request: pytest.FixtureRequest, tiny: Config) -> Config:
    return get_config({**tiny.to_dict(), **request.param})


def test_later_tokens_do_not_change_earlier_logits(variant: Config) -> None:
    model = warmed(variant)
    idx = torch.randint(64, (2, 16))
    changed = idx.clone()
    changed[:, 9:] = torch.randint(64, (2, 7))
    assert torch.equal(model(idx)[:, :9], model(changed)[:, :9])


def test_earlier_tokens_and_their_order_change_later_logits(variant: Config) -> None:
    model = warmed(variant)
    idx = torch.arange(16)[None]
    swapped = idx.clone()
    swapped[0, [2, 3]] = swapped[0, [3, 2]]
    assert (model(idx)[:, 9] - model(swapped)[:, 9]).abs().max() > 1e-4


def test_the_first_loss_is_about_that_of_a_uniform_guess(variant: Config) -> None:
    idx = torch.randint(64, (8, 17))
    _, loss = GPT(variant)(idx[:, :-1], idx[:, 1:])
    assert loss.item() == pytest.approx(math.log(64), abs=0.05)


def last_loss(config: Config, **changes: object) -> float:
    """Return the loss of a model that has read one text of 32 characters again and again."""
    steps = {"learning_rate": 3e-2, "max_iters": 90, "weight_decay": 0.0, "save_checkpoint": False}
    config = get_config({**config.to_dict(), **steps, **changes})
    config = get_config(config.to_dict(), eval_interval=config.max_iters)
    data = CharDataset("abcdefghijklmnopqrstuvwxyz012345", 16)
    return Trainer(GPT(config), config).train(data, data).history[-1]["train_loss"]


@pytest.mark.parametrize("name", some(VARIANTS, *MIXED, "qk_norm", "softcap", "zero_init"))
def test_one_text_can_be_learnt_by_heart(tiny: Config, name: str) -> None:
    steps = 80 if name == "softcap" else 45  # a cap slows the last of it down
    assert last_loss(tiny, **VARIANTS[name], n_layer=1, max_iters=steps) < 0.3


@pytest.mark.parametrize("name", some(["gpt2", "modern", "modern, some"], "modern, some"))
def test_one_text_can_be_learnt_by_heart_with_muon(tiny: Config, name: str) -> None:
    assert last_loss(tiny, **VARIANTS[name], optimizer="muon", max_iters=50) < 0.3


@pytest.mark.parametrize("name", some(VARIANTS, *MIXED))
def test_a_seed_gives_the_same_model_and_run_again(tiny: Config, name: str, text: str) -> None:
    config = get_config(tiny, **VARIANTS[name], optimizer="muon", ema_decay=0.9)
    data = CharDataset(text, 16)
    runs = [Trainer(GPT(config), config).train(data, data).history for _ in range(2)]
    assert runs[0] == runs[1]


def test_cached_logits_are_those_of_the_whole_text(variant: Config) -> None:
    model = warmed(variant).eval()
    idx = torch.randint(64, (2, 16))
    with torch.inference_mode():
        decoder = prepare(model, n_tokens=50)(rows=2)
        for row in range(2):
            decoder.encode(idx[row, :5], row)
        for at in range(5, 12):
            logits = decoder.step(idx[:, at], torch.tensor([at, at]))
            expected = model(idx[:, : at + 1])[:, -1, :50]
            torch.testing.assert_close(logits, expected, atol=2e-5, rtol=1e-5)


def test_soft_capped_logits_stay_within_the_cap(tiny: Config) -> None:
    model = warmed(get_config({**tiny.to_dict(), "logit_softcap": 2.0}))
    with torch.no_grad():
        model.wte.weight.mul_(100)
        assert model(torch.randint(64, (2, 16))).abs().max() <= 2.0


def test_grouped_heads_equal_full_heads_with_repeated_weights(tiny: Config) -> None:
    grouped = warmed(get_config({**tiny.to_dict(), "n_layer": 1, "n_kv_head": 1}))
    full = GPT({**tiny.to_dict(), "n_layer": 1})
    weights = grouped.state_dict()
    for name in ("h.0.attn.c_attn.weight", "h.0.attn.c_attn.bias"):
        q, k, v = weights[name].split([16, 8, 8])
        weights[name] = torch.cat([q, k, k, v, v])
    full.load_state_dict(weights)
    idx = torch.randint(64, (2, 16))
    torch.testing.assert_close(grouped(idx), full(idx))


def test_with_a_convolution_a_model_starts_as_it_is_without(tiny: Config) -> None:
    idx = torch.randint(64, (2, 16))
    assert torch.equal(GPT({**tiny.to_dict(), "mlp_conv": 4})(idx), GPT(tiny)(idx))


def test_the_convolution_reaches_as_many_tokens_as_it_spans(tiny: Config) -> None:
    model = warmed(get_config({**tiny.to_dict(), "n_layer": 1, "mlp_conv": 4}))
    with torch.no_grad():
        model.get_parameter("h.0.attn.c_proj.weight").zero_()  # what is left to see of other tokens
    idx = torch.randint(64, (1, 16))
    changed = idx.clone()
    changed[0, 5] = (idx[0, 5] + 1) % 64
    differs = (model(idx) != model(changed)).any(-1)[0]
    assert differs.nonzero().flatten().tolist() == [5, 6, 7, 8]


def test_adamw_trains_the_convolution_and_lets_it_decay(tiny: Config) -> None:
    config = get_config({**tiny.to_dict(), "optimizer": "muon", "mlp_conv": 4})
    model = GPT(config)
    adamw, _ = Trainer(model, config).stepper.optimizers
    decaying = [p for group in adamw.param_groups if group["weight_decay"] for p in group["params"]]
    for block in model.h:
        assert any(p is block.mlp_conv for p in decaying)


def test_a_model_file_from_before_the_convolution_has_none(tiny: Config, tmp_path: Path) -> None:
    model = GPT(tiny)
    config = {key: value for key, value in tiny.to_dict().items() if key != "mlp_conv"}
    content = {"model_state_dict": model.state_dict(), "config": config}
    save_tensors(tmp_path / "old.pt", content)
    assert load_checkpoint(tmp_path / "old.pt", device="cpu").model.config.mlp_conv == 0


def test_rotary_attention_sees_distances_not_places(tiny: Config) -> None:
    model = warmed(get_config({**tiny.to_dict(), "positions": "rotary", "n_layer": 1}))
    # one repeated token: all keys are alike, so each place attends alike
    logits = model(torch.full((1, 16), 7))
    torch.testing.assert_close(logits[:, 3], logits[:, 15], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_head": 4, "n_kv_head": 3}, "n_kv_head: found 3; allowed: a divisor of n_head 4"),
        (
            {"n_embd": 18, "n_head": 2, "positions": "rotary"},
            "a divisor of half of n_embd 18",
        ),
        ({"mlp": "relu"}, 'mlp: found "relu"; allowed: gelu, relu2, '),
        ({"mlp_conv": 1}, "mlp_conv: found 1; allowed: 0, 2, 3, 4, 5, 6, 7, 8, null"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_config("nano", **changes)


# --- The mean of the weights, schedules, patience ---


def test_the_kept_weights_are_the_running_mean(tiny: Config, text: str) -> None:
    config = get_config({**tiny.to_dict(), "ema_decay": 0.99})
    model, data = GPT(config), CharDataset(text, 16)
    trainer = Trainer(model, config)
    mean: Tensor = model.wte.weight.detach().clone()
    for step in range(6):
        trainer.stepper.step(data, step)
        decay = min(0.99, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * model.wte.weight.detach()
    torch.testing.assert_close(trainer.stepper.ema.means[0], mean)
    again = GPT(config)
    Trainer(again, config).train(data, data)
    torch.testing.assert_close(again.wte.weight.detach(), mean)


def test_the_trapezoid_holds_and_falls(tiny: Config) -> None:
    changes = {"schedule": "trapezoid", "max_iters": 100, "warmup_iters": 10, "decay_fraction": 0.5}
    config = get_config({**tiny.to_dict(), **changes, "min_learning_rate_fraction": 0.0})
    factors = [learning_rate_factor(step, config) for step in range(100)]
    assert factors[:2] == pytest.approx([0.1, 0.2])
    assert factors[9:54] == [1.0] * 45
    assert factors[-1] == 0
    assert factors[77] == pytest.approx(0.49, abs=0.01)


def test_patience_ends_a_run_that_gets_no_better(tiny: Config) -> None:
    changes = {"max_iters": 400, "eval_interval": 10, "learning_rate": 3e-2, "patience": 3}
    config = get_config({**tiny.to_dict(), **changes})
    train = CharDataset("abcdefghijklmnopqrstuvwxyz" * 4, 16)
    val = CharDataset("zyxwvutsrqponmlkjihgfedcba" * 4, 16, train.tokenizer)
    record = Trainer(GPT(config), config).train(train, val)
    assert record.step == record.history[-1]["iter"] < 400
    assert record.step - record.best_iter == 30
