"""Training: the loop does what the configuration says, and the same run gives the same bytes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch.utils.data import random_split

from nanogpt2.base.system.errors import ConfigError, DataError, TrainingError
from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import CharDataset, TokenDataset
from nanogpt2.train.estimate import estimate_loss
from nanogpt2.train.record import TrainingRecord
from nanogpt2.train.trainer import Trainer


def trained(config: Config, text: str) -> tuple[GPT, TrainingRecord]:
    model = GPT(config)
    dataset = CharDataset(text, config.block_size)
    return model, Trainer(model, config).train(dataset, dataset)


def weights(model: GPT) -> torch.Tensor:
    return torch.cat([value.flatten() for value in model.state_dict().values()])


def with_changes(config: Config, **changes: object) -> Config:
    return get_config({**config.to_dict(), **changes})


def test_two_identical_runs_give_identical_weights(tiny: Config, text: str) -> None:
    config = with_changes(tiny, dropout=0.2)
    first, second = trained(config, text), trained(config, text)
    assert torch.equal(weights(first[0]), weights(second[0]))
    assert first[1].history == second[1].history


def test_the_seed_changes_the_run(tiny: Config, text: str) -> None:
    other = trained(with_changes(tiny, seed=2), text)[0]
    assert not torch.equal(weights(other), weights(trained(tiny, text)[0]))


def test_training_learns(tiny: Config, text: str) -> None:
    config = with_changes(tiny, max_iters=150, eval_interval=150, learning_rate=1e-2)
    _, record = trained(config, text)
    assert record.history[-1]["val_loss"] < 1.5  # a uniform guess costs 4.16


def test_accumulated_batches_equal_one_large_batch(tiny: Config, text: str) -> None:
    large = with_changes(tiny, batch_size=8, gradient_accumulation_steps=1)
    small = with_changes(tiny, batch_size=2, gradient_accumulation_steps=4)
    torch.testing.assert_close(
        weights(trained(large, text)[0]), weights(trained(small, text)[0]), atol=2e-5, rtol=0
    )


def test_windows_that_follow_documents_are_said_and_trained_on(
    tiny: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_changes(tiny, sampling="documents")
    tokens = CharDataset(text, config.block_size).tokens
    dataset = TokenDataset(tokens, config.block_size, separator=[int(tokens[44])])  # the space
    Trainer(GPT(config), config).train(dataset, dataset)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("documents: 360 in ")
    with pytest.raises(DataError, match="sampling: found documents"):
        trained(config, text)


def test_the_history_so_far_is_handed_out_after_each_evaluation(tiny: Config, text: str) -> None:
    shown: list[list[Mapping[str, float]]] = []
    dataset = CharDataset(text, tiny.block_size)
    trainer = Trainer(GPT(tiny), tiny, on_evaluation=lambda history: shown.append([*history]))
    record = trainer.train(dataset, dataset)
    assert shown == [record.history[:1], record.history]
    assert [row["iter"] for row in record.history] == [3, 6]


def test_what_fails_to_show_the_history_is_said_once_and_ends_no_run(
    tiny: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(history: Sequence[Mapping[str, float]]) -> None:
        raise ValueError(f"no room for {len(history)}")

    dataset = CharDataset(text, tiny.block_size)
    record = Trainer(GPT(tiny), tiny, on_evaluation=fail).train(dataset, dataset)
    assert record.step == 6
    assert capsys.readouterr().err == ("warning: not all of this run can be shown: no room for 1\n")


def test_evaluating_more_often_does_not_change_the_weights(tiny: Config, text: str) -> None:
    config = with_changes(tiny, dropout=0.2)
    often = trained(with_changes(config, eval_interval=1, eval_iters=3), text)
    assert len(often[1].history) == 6
    assert torch.equal(weights(often[0]), weights(trained(config, text)[0]))


def test_evaluations_come_at_the_interval_and_at_the_end(tiny: Config, text: str) -> None:
    _, record = trained(with_changes(tiny, max_iters=5, eval_interval=2), text)
    assert [row["iter"] for row in record.history] == [2, 4, 5]
    _, record = trained(with_changes(tiny, max_iters=5, eval_interval=100), text)
    assert [row["iter"] for row in record.history] == [5]


def test_the_best_weights_are_those_of_the_lowest_validation_loss(tiny: Config) -> None:
    config = with_changes(
        tiny, max_iters=120, eval_interval=10, learning_rate=3e-2, eval_iters=8, batch_size=8
    )
    train = CharDataset("abcdefghijklmnopqrstuvwxyz" * 4, 16)
    val = CharDataset("zyxwvutsrqponmlkjihgfedcba" * 4, 16, train.tokenizer)  # learning it hurts
    model = GPT(config)
    trainer = Trainer(model, config)
    record = trainer.train(train, val)
    losses = {row["iter"]: row["val_loss"] for row in record.history}
    assert record.best_iter == min(losses, key=lambda step: losses[int(step)]) < 120
    model.load_state_dict(record.best_weights)
    assert estimate_loss(trainer.stepper, val) == pytest.approx(record.best_val_loss, abs=1e-6)


def test_clipping_bounds_the_step(tiny: Config, text: str) -> None:
    # With AdamW's first step of sign(gradient) clipping does not show; the second moment keeps it.
    clipped = trained(with_changes(tiny, grad_clip=1e-3), text)[0]
    assert not torch.equal(weights(clipped), weights(trained(tiny, text)[0]))


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights(
    tiny: Config, text: str
) -> None:
    config = with_changes(tiny, precision="bf16")
    seen = []
    model = GPT(config)
    model.get_submodule("h.0.mlp.c_fc").register_forward_hook(
        lambda *args: seen.append(args[2].dtype)
    )
    dataset = CharDataset(text, config.block_size)
    record = Trainer(model, config).train(dataset, dataset)
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    _, exact = trained(tiny, text)
    assert record.history[-1]["val_loss"] == pytest.approx(exact.history[-1]["val_loss"], rel=0.01)


def test_the_printed_line_is_the_guides(
    tiny: Config, text: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    dataset = CharDataset(text, tiny.block_size)
    log = tmp_path / "logs" / "train.log"
    tiny = with_changes(tiny, compile=False)  # without a compiler there would be a note
    Trainer(GPT(tiny), tiny, log_file=log).train(dataset, dataset)
    lines = capsys.readouterr().out.splitlines()
    number = r"\d+\.\d{4}"
    start = rf"train loss {number}, val loss {number} \(time: \d+\.\d\ds\)"
    assert re.fullmatch(rf"iter 0: {start}", lines[0])
    assert re.fullmatch(rf"iter 3: {start}, [\d,]+ tokens/s, \d+s left", lines[1])
    assert re.match("iter 6: .*tokens/s$", lines[2])
    assert log.read_text(encoding="utf-8").splitlines() == lines


def test_the_guides_random_split_trains_too(tiny: Config, text: str) -> None:
    parts = random_split(
        CharDataset(text, 16), [1400, 384], generator=torch.Generator().manual_seed(0)
    )
    assert Trainer(GPT(tiny), tiny).train(*parts).step == 6


def test_a_validation_text_takes_the_training_texts_tokens(tiny: Config, text: str) -> None:
    train, val = CharDataset(text, 16), CharDataset("the dog jumps over the lazy fox", 16)
    own = Trainer(GPT(tiny), tiny).train(train, val).history
    given = CharDataset("the dog jumps over the lazy fox", 16, train.tokenizer)
    assert Trainer(GPT(tiny), tiny).train(train, given).history == own


def test_without_data_it_says_what_is_missing(tiny: Config) -> None:
    with pytest.raises(DataError, match="train needs two datasets"):
        Trainer(GPT(tiny), tiny).train()


def test_a_text_with_more_tokens_than_rows_is_refused(tiny: Config, text: str) -> None:
    with pytest.raises(DataError, match="vocab_size: found 20; allowed: at least 28"):
        trained(with_changes(tiny, vocab_size=20), text)


def test_a_trainer_that_has_trained_says_so(tiny: Config, text: str) -> None:
    dataset = CharDataset(text, 16)
    trainer = Trainer(GPT(tiny), tiny)
    trainer.train(dataset, dataset)
    with pytest.raises(TrainingError, match=r"trained already, to iteration 6; .*a new Trainer"):
        trainer.train(dataset, dataset)


@pytest.mark.parametrize(
    ("key", "value"), [("n_head", 1), ("n_embd", 32), ("mlp", "relu2"), ("dropout", 0.5)]
)
def test_a_model_of_another_configuration_is_refused_by_its_keys(
    tiny: Config, key: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: \S+ in the model, {value} in the conf.*GPT\("):
        Trainer(GPT(tiny), with_changes(tiny, **{key: value}))


def test_what_does_not_shape_the_model_may_differ(tiny: Config, text: str) -> None:
    dataset = CharDataset(text, 16)
    changes = {"seed": 3, "max_iters": 3, "architecture": "gpt2", "zero_init": True}
    assert Trainer(GPT(tiny), with_changes(tiny, **changes)).train(dataset, dataset).step == 3


def test_a_wrapped_model_trains_as_it_is(tiny: Config, text: str) -> None:
    dataset, model = CharDataset(text, 16), GPT(tiny)
    Trainer(torch.nn.DataParallel(model), tiny).train(dataset, dataset)
    assert torch.equal(weights(model), weights(trained(tiny, text)[0]))
