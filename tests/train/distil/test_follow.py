"""Training that follows teachers: what it computes, on what it depends, and what keeps it away."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch
from crashing import CrashError, train
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nanogpt2.base.system.errors import NanoGPT2Error
from nanogpt2.config.config import Config, get_config
from nanogpt2.model.checkpoint import hash_weights, load_checkpoint, save_checkpoint, save_tensors
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer
from nanogpt2.train.distil.follow import share_out
from nanogpt2.train.distil.teachers import Teacher, describe, load_teachers
from nanogpt2.train.estimate import estimate_loss
from nanogpt2.train.step import Stepper
from nanogpt2.train.trainer import Trainer

# The second has another shape, its own cap, a longer context, and rows that are no tokens.
SHAPES: list[dict[str, object]] = [
    {},
    {"n_embd": 24, "n_head": 1, "architecture": "gpt2", "logit_softcap": 3.0, "block_size": 32}
    | {"vocab_size": 40},
]


@pytest.fixture
def tokenizer(text: str) -> Tokenizer:
    return CharTokenizer.train(text)


@pytest.fixture
def config(tiny: Config, tokenizer: Tokenizer) -> Config:
    """A run that follows two teachers, whose files are here."""
    paths = []
    for number, changes in enumerate(SHAPES):
        teacher = get_config(tiny, **{"zero_init": False, "seed": 10 + number, **changes})
        paths.append(f"teacher-{number}.pt")
        weights = {name: 3 * weight for name, weight in GPT(teacher).state_dict().items()}
        save_checkpoint(paths[-1], weights, teacher, tokenizer=tokenizer, origin={})
    return get_config(tiny, teachers=paths, teacher_temperature=2.0, zero_init=False)


def gradients(config: Config, text: str) -> tuple[float, dict[str, Tensor]]:
    """Return the loss of the first step, and the gradients of the weights."""
    model = GPT(config)
    stepper = Stepper(model, config, say=lambda _: None)
    stepper.optimizers = []
    loss = stepper.step(CharDataset(text, config.block_size), 0).figures[0].item()
    return loss, {n: w.grad for n, w in model.named_parameters() if w.grad is not None}


def test_a_step_has_the_mixed_loss_of_a_batch_and_its_gradient(config: Config, text: str) -> None:
    config = get_config(config, grad_clip=0)
    loss, found = gradients(config, text)
    model, data = GPT(config), CharDataset(text, config.block_size)
    stepper = Stepper(GPT(config), config, teachers=())
    windows = stepper.batches.draw(data, config.batch_size, 0)
    idx, targets = data.batch(windows.numpy())
    n, t, w = data.tokenizer.size, config.teacher_temperature, config.teacher_weight
    teachers = [load_checkpoint(path, device="cpu").model for path in config.teachers]
    with torch.no_grad():
        p = torch.stack([(each(idx)[..., :n] / t).softmax(-1) for each in teachers]).mean(0)
    logits, hard = model(idx, targets)
    soft = -(p * (logits / t).log_softmax(-1)[..., :n]).sum(-1).mean()
    right = (1 - w) * hard + w * t * t * soft
    right.backward()
    assert loss == pytest.approx(right.item(), rel=1e-5)
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        scale = weight.grad.abs().max()
        assert (found[name] - weight.grad).abs().max() <= 1e-4 * scale + 1e-9, name


def test_a_model_that_is_its_teacher_has_nothing_to_learn_from_it(
    config: Config, text: str
) -> None:
    data = CharDataset(text, 16)
    config = get_config(config, vocab_size=data.tokenizer.size, grad_clip=0)  # each row is a token
    model = GPT(config)
    teacher = Teacher("same", GPT(config), data.tokenizer, "")
    norms = []
    for weight in (0.0, 1.0):
        stepper = Stepper(model, get_config(config, teacher_weight=weight), [teacher])
        stepper.optimizers = []
        norms.append(stepper.step(data, 0).figures[1].item())
    assert norms[1] < 1e-4 * norms[0]


def test_teachers_that_take_turns_have_the_gradient_of_all_in_the_mean(
    config: Config, text: str
) -> None:
    data, found = CharDataset(text, config.block_size), []
    for per_step in (0, 1):
        changed = get_config(config, teachers_per_step=per_step)
        stepper = Stepper(GPT(changed), changed, say=lambda _: None)
        windows = stepper.batches.draw(data, config.batch_size, 0)
        idx, targets = data.batch(windows.numpy())
        for step in (4, 5):
            stepper.objective.begin(step)
            loss = stepper.objective.loss(stepper.model, idx, targets)
            found.append(torch.autograd.grad(loss, stepper.model.wte.weight)[0])
    of_all, again, one, other = found
    assert torch.equal(of_all, again)
    assert not torch.allclose(one, of_all, rtol=0.01)
    torch.testing.assert_close((one + other) / 2, of_all, rtol=1e-4, atol=1e-7)


@given(count=st.integers(1, 20), per_step=st.integers(0, 25))
def test_teachers_take_turns_so_that_all_have_the_same_share(count: int, per_step: int) -> None:
    turns = share_out(count, per_step)
    assert {len(set(turn)) for turn in turns} == {min(per_step, count) or count}
    assert set(Counter(itertools.chain(*turns)).values()) == {len(turns[0]) * len(turns) // count}


def test_teachers_take_turns_beside_a_loss_ahead_too(config: Config) -> None:
    changed = get_config(config, teachers_per_step=1, mtp_weight=0.3)
    stepper = Stepper(GPT(changed), changed, say=lambda _: None)
    turns = []
    for step in range(4):
        stepper.objective.begin(step)
        turns.append(stepper.objective.turn)
    assert turns == [0, 1, 0, 1]


def test_accumulation_is_one_large_batch(config: Config, text: str) -> None:
    whole = get_config(config, batch_size=4, grad_clip=0)
    parts = get_config(whole, batch_size=1, gradient_accumulation_steps=4)
    (one, large), (other, small) = gradients(whole, text), gradients(parts, text)
    assert one == pytest.approx(other, rel=1e-5)
    for name, gradient in large.items():
        torch.testing.assert_close(small[name], gradient, rtol=1e-4, atol=1e-6)


def test_without_a_weight_teachers_are_not_even_read(
    config: Config, tiny: Config, text: str
) -> None:
    plain = train(get_config(tiny, zero_init=False), text)
    absent = get_config(config, teacher_weight=0, teachers=["nowhere.pt"])
    found = train(absent, text)
    assert hash_weights(found[0].model.state_dict()) == hash_weights(plain[0].model.state_dict())
    assert found[1].history == plain[1].history


def test_evaluations_tell_the_plain_loss(config: Config, tiny: Config, text: str) -> None:
    data = CharDataset(text, 16)
    plain = get_config(tiny, zero_init=False)
    steppers = [Stepper(GPT(each), each, say=lambda _: None) for each in (config, plain)]
    found, usual = (estimate_loss(stepper, data) for stepper in steppers)
    assert found == usual
    assert steppers[0].step(data, 0).figures[0] != steppers[1].step(data, 0).figures[0]


@pytest.mark.parametrize("per_step", [0, 1])
def test_a_run_cut_off_ends_as_if_it_had_not_been(
    config: Config, text: str, per_step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"dropout": 0.2, "max_iters": 9, "checkpoint_interval": 3}
    config = get_config(config, **changes, teachers_per_step=per_step)
    unbroken = train(config, text)
    for crash in (4, 8):
        with pytest.raises(CrashError):
            train(config, text, crash=crash)
    capsys.readouterr()
    found = train(config, text)
    assert "going on from iteration 6" in capsys.readouterr().out
    assert hash_weights(found[0].model.state_dict()) == hash_weights(unbroken[0].model.state_dict())
    assert found[1].history == unbroken[1].history


def test_with_other_teachers_no_run_goes_on_from_its_state(
    config: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = get_config(config, checkpoint_interval=2)
    with pytest.raises(CrashError):
        train(config, text, crash=4)
    Path(config.teachers[0]).write_bytes(Path(config.teachers[1]).read_bytes())
    train(config, text)
    assert "going on" not in capsys.readouterr().out


@pytest.mark.parametrize(("per_step", "turns"), [(0, ""), (1, ", 1 of them in each step"), (2, "")])
def test_a_run_says_whom_it_follows(config: Config, per_step: int, turns: str) -> None:
    config = get_config(config, teachers_per_step=per_step)
    line = describe(load_teachers(config), config)
    assert line == f"following teacher-0.pt, teacher-1.pt: 0.7 of the loss{turns}"


def test_the_hash_is_that_of_the_weights_in_whatever_file(config: Config) -> None:
    read = load_checkpoint(config.teachers[0], device="cpu")
    teacher: Teacher = load_teachers(config)[0]
    assert teacher.sha256 == hash_weights(read.model.state_dict())
    assert not any(weight.requires_grad for weight in teacher.model.parameters())


def spoil(config: Config, what: str) -> str:
    """Make another file of the first teacher, and return its path."""
    read = load_checkpoint(config.teachers[0], device="cpu")
    weights, own, tokenizer = dict(read.model.state_dict()), read.model.config, read.tokenizer
    path: str = f"{what}.pt".replace(" ", "-")
    if what == "none":
        tokenizer = None
    elif what == "rows":
        own = get_config(own, vocab_size=256)
        weights, tokenizer = GPT(own).state_dict(), ByteTokenizer()
    elif what == "nan":
        weights["ln_f.weight"] = weights["ln_f.weight"] * float("nan")
    elif what == "short":
        own = get_config(own, block_size=8)
        weights["wpe.weight"] = weights["wpe.weight"][:8]
    elif what == "state":
        save_tensors(path, {"record": {}, "stepper": {"model": weights}})
        return path
    elif what == "folder":
        Path(path).mkdir()
        return path
    elif what == "damaged":
        Path(path).write_bytes(Path(config.teachers[0]).read_bytes()[:-200])
        return path
    save_checkpoint(path, weights, own, tokenizer=tokenizer, origin={})
    return path


LINES = {
    "none": "teachers: none.pt: it holds no tokenizer, so its tokens are not known",
    "rows": "teachers: rows.pt: found a tokenizer of 256 tokens; allowed: at most 64, the"
    " vocab_size of the run and its own",
    "nan": "teachers: nan.pt: its weights are not all finite numbers: ln_f.weight",
    "short": "teachers: short.pt: found block_size 8; allowed: at least 16, the run's",
    "state": "teachers: state.pt: not a model file: it holds no model_state_dict",
    "folder": "teachers: folder.pt: is a folder, not a model file",
    "damaged": "teachers: damaged.pt: damaged, or not a checkpoint",
}


@pytest.mark.parametrize("what", LINES)
def test_what_is_no_teacher_is_one_line_before_anything_is_written(
    config: Config, what: str
) -> None:
    broken = get_config(config, teachers=[spoil(config, what), config.teachers[1]])
    there = sorted(Path().iterdir())
    with pytest.raises(NanoGPT2Error) as raised:
        Trainer(GPT(broken), broken)
    assert str(raised.value) == LINES[what]
    assert sorted(Path().iterdir()) == there


def test_every_teacher_that_is_missing_is_named(config: Config) -> None:
    missing = get_config(config, teachers=["a.pt", config.teachers[0], "b.pt"])
    with pytest.raises(NanoGPT2Error) as raised:
        load_teachers(missing)
    lines = "teachers: a.pt: no such file", "teachers: b.pt: no such file"
    assert tuple(str(raised.value).splitlines()) == lines


def test_a_teacher_of_other_tokens_is_refused(config: Config, text: str) -> None:
    data = CharDataset(text + "!", 16)
    trainer = Trainer(GPT(config), config)
    with pytest.raises(NanoGPT2Error) as raised:
        trainer.train(data, data)
    assert str(raised.value).splitlines() == [
        f"teachers: {path}: found a char tokenizer of 28 tokens; allowed: the run's own, char of"
        " 29, with each token the same"
        for path in config.teachers
    ]
    assert not Path("checkpoints").exists()
