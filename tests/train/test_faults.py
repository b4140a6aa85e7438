"""Faults, injected for real: non-finite losses, no memory, no disk, hostile files, signals."""

import math
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
import warm
from imports import ROOT

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import CheckpointError, DataError, DeviceError, TrainingError
from nanogpt2.config.config import Config, get_config
from nanogpt2.model.checkpoint import load_checkpoint, save_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.tokens.tokenizer import ByteTokenizer
from nanogpt2.train.optimizers.loss_scale import LossScale
from nanogpt2.train.record import TrainingRecord
from nanogpt2.train.trainer import Trainer

CPU = torch.device("cpu")


def with_changes(config: Config, **changes: object) -> Config:
    return get_config({**config.to_dict(), **changes})


def train(config: Config, text: str, model: GPT | None = None) -> TrainingRecord:
    data = CharDataset(text, config.block_size)
    return Trainer(model or GPT(config), config).train(data, data)


# --- Losses that are not finite ---


def poisoned(config: Config, *, training_pass: int) -> GPT:
    """Return a model whose activations become NaN in one forward pass of training."""
    model, passes = GPT(config), iter(range(10**6))

    def poison(module: torch.nn.Module, _: object, output: torch.Tensor) -> torch.Tensor | None:
        return output * torch.nan if module.training and next(passes) == training_pass else None

    model.ln_f.register_forward_hook(poison)
    return model


def test_the_scale_of_float16_does_not_hide_a_loss_that_is_not_finite(
    tiny: Config, text: str
) -> None:
    trainer = Trainer(GPT(tiny), tiny)
    trainer.stepper.loss_scale, trainer.losses.scales = LossScale(CPU), True
    trainer.model.ln_f.register_forward_hook(lambda m, _, y: y * math.nan if m.training else y)
    data = CharDataset(text, 16)
    with pytest.raises(TrainingError, match="not finite"):
        trainer.train(data, data)


def test_a_loss_that_is_not_finite_stops_the_run(tiny: Config, text: str) -> None:
    config = with_changes(tiny, max_iters=20, eval_interval=2, checkpoint_interval=2)
    rescued: list[tuple[TrainingRecord, dict[str, object]]] = []
    data = CharDataset(text, config.block_size)
    trainer = Trainer(poisoned(config, training_pass=6), config)
    with pytest.raises(TrainingError) as caught:
        trainer.train(data, data, save=lambda *results: rescued.append(results))
    assert [(record.best_iter, list(weights)) for record, weights in rescued] == [(6, ["best"])]
    line = str(caught.value)
    assert "iteration 7: loss nan, gradient norm nan at learning rate 0.000839" in line
    assert "try a lower learning_rate" in line
    good = train(config, text)  # goes on from the last good state
    unbroken = train(with_changes(config, save_checkpoint=False), text)
    assert good.history == unbroken.history


def test_a_loss_that_is_not_finite_in_the_last_step_is_no_good_end(
    tiny: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_changes(tiny, eval_interval=tiny.max_iters)
    with pytest.raises(TrainingError, match="loss nan"):
        train(config, text, poisoned(config, training_pass=config.max_iters - 1))
    assert capsys.readouterr().err == ""


def test_with_skip_the_step_is_left_out_and_said_once(
    tiny: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_changes(tiny, on_nonfinite="skip")
    model = poisoned(config, training_pass=3)
    record = train(config, text, model)
    assert record.step == 6
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert capsys.readouterr().out.count("iteration 4: loss nan") == 1


def test_a_spike_is_warned_of(tiny: Config, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = with_changes(tiny, max_iters=130, eval_interval=130)
    model, passes = GPT(config), iter(range(10**6))

    def confuse(_: object, __: object, output: torch.Tensor) -> torch.Tensor | None:
        # four passes are for the losses of iteration 0
        return output * 50 if next(passes) == 4 + 120 else None

    model.ln_f.register_forward_hook(confuse)
    train(config, text, model)
    warnings = [line for line in capsys.readouterr().out.splitlines() if "far above" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("warning: iteration 121: loss ")


def test_over_fitting_is_told_once(tiny: Config, capsys: pytest.CaptureFixture[str]) -> None:
    config = with_changes(tiny, max_iters=120, eval_interval=10, learning_rate=3e-2)
    data = CharDataset("abcdefghijklmnopqrstuvwxyz" * 4, 16)
    val = CharDataset("zyxwvutsrqponmlkjihgfedcba" * 4, 16, data.tokenizer)
    Trainer(GPT(config), config).train(data, val)
    advice = [line for line in capsys.readouterr().out.splitlines() if "advice" in line]
    assert len(advice) == 1
    assert re.match(r"advice: over-fitting: val loss was best at iteration \d+ ", advice[0])


def test_a_run_that_learns_nothing_is_told_so(
    tiny: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train(with_changes(tiny, max_iters=4, eval_interval=1, learning_rate=1e-9), text)
    assert "advice: the loss does not fall" in capsys.readouterr().out


# --- Memory ---


def test_without_memory_for_the_batch_it_goes_on_with_smaller_ones(
    tiny: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_changes(tiny, batch_size=8)
    model = GPT(config)

    def refuse(_: object, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.h[0].register_forward_pre_hook(refuse)
    record = train(config, text, model)
    said = [line for line in capsys.readouterr().out.splitlines() if "out of memory" in line]
    assert said == [
        f"warning: out of memory: going on with {n} sequences at a time instead of 8;"
        " each step still sees 8"
        for n in (4, 2)
    ]
    expected = train(config, text)
    for row, other in zip(record.history, expected.history, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], abs=1e-5)


def test_with_shards_no_smaller_ones_are_taken_since_their_bytes_are_others(
    tiny: Config, text: str
) -> None:
    config = with_changes(tiny, batch_size=12, shards=2)

    def refuse(_: object, args: tuple[torch.Tensor, ...]) -> None:
        if len(args[0]) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")

    models = GPT(config), GPT(config)
    for model in models:
        model.h[0].register_forward_pre_hook(refuse)
    with pytest.raises(DeviceError) as error:
        train(config, text, models[0])
    assert str(error.value) == (
        "out of memory with 6 sequences at a time: set batch_size to 3 and"
        " gradient_accumulation_steps to 4"
    )
    train(with_changes(config, batch_size=3, gradient_accumulation_steps=4), text, models[1])


def test_a_micro_batch_that_is_halved_gives_up_steps_that_were_captured_with_it(
    tiny: Config, text: str
) -> None:
    trainer = Trainer(GPT(tiny), tiny)
    stepper, data = trainer.stepper, CharDataset(text, tiny.block_size)
    stepper.captured[data] = lambda *_: torch.zeros(2)  # type: ignore[assignment]
    shortages = iter([torch.OutOfMemoryError("CUDA out of memory")])

    def work() -> torch.Tensor:
        for shortage in shortages:
            raise shortage
        return torch.ones(1)

    assert stepper.micro_batch.fit(work) == 1
    assert stepper.micro_batch.size == tiny.batch_size // 2
    assert not stepper.captured


def test_without_memory_for_one_sequence_it_gives_the_numbers(tiny: Config, text: str) -> None:
    model = GPT(tiny)

    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.h[0].register_forward_pre_hook(refuse)
    with pytest.raises(
        DeviceError, match="out of memory on cpu even with one sequence: 7,872"
    ) as e:
        train(tiny, text, model)
    assert "GiB" in str(e.value)
    assert "what fits" in str(e.value)


def test_a_real_shortage_of_host_memory_is_met_too() -> None:
    """A limit on the address space makes torch's allocator fail where the batch is large.

    In float32: where a processor multiplies in 16 bits, code made for that takes most of the limit.
    And after a run that fits: the library that multiplies takes buffers once, and where it gets
    none it ends the process.
    """
    script = f"""
import os, resource, sys
sys.path.insert(0, {str(ROOT)!r})
import torch
torch.set_num_threads(1)
from nanogpt2.config.config import get_config
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.model.gpt import GPT
from nanogpt2.train.trainer import Trainer
data = CharDataset('to be or not to be ' * 100, 128)
def train(batch_size):
    config = get_config('nano', device='cpu', dropout=0.0, max_iters=1, eval_iters=1, n_layer=2,
                        batch_size=batch_size, save_checkpoint=False, mixed_precision=False)
    Trainer(GPT(config), config).train(data, data)
train(8)
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)
print('a batch too large:')
train(128)
sys.stdout.flush()
os._exit(0)  # Python takes half a second to take torch apart
"""
    # a process of its own, in which a thread takes no 64 MB of addresses for its heap (malloc(3));
    # on a busy machine more threads begin, and sleep (device/threads.py): each takes a stack
    env = os.environ | {"MALLOC_ARENA_MAX": "1"}
    command = ["sh", "-c", 'ulimit -s 2048 && exec "$0" -c "$1"', sys.executable, script]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    whole, short = done.stdout.split("a batch too large:")
    assert "out of memory" not in whole
    assert "warning: out of memory: going on with 64 sequences at a time" in short
    assert "iter 1: train loss" in short


# --- Disk ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_earlier_file_whole(small_disk: Path) -> None:
    path = small_disk / "model.pt"
    files.write_bytes(path, b"earlier")
    with pytest.raises(DataError, match=r"model.pt: cannot be written: No space left on device"):
        files.write_bytes(path, bytes(2_000_000))
    assert path.read_bytes() == b"earlier"
    assert list(small_disk.iterdir()) == [path]


def test_a_full_disk_costs_the_log_but_not_the_run(
    small_disk: Path, tiny: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with suppress(OSError), (small_disk / "rest").open("wb", buffering=0) as rest:
        while rest.write(bytes(4096)):
            pass
    data, log = CharDataset(text, 16), small_disk / "logs/train.log"
    assert Trainer(GPT(tiny), tiny, log_file=log).train(data, data).step == 6
    assert f"warning: no more lines go to {log}: No space left" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["file/train.log", "/proc/logs/train.log"])
def test_a_log_that_cannot_be_written_costs_no_run(tiny: Config, text: str, place: str) -> None:
    Path("file").write_text("no folder", encoding="utf-8")
    data = CharDataset(text, 16)
    assert Trainer(GPT(tiny), tiny, log_file=Path(place)).train(data, data).step == 6


def test_a_reader_that_goes_away_ends_no_run_and_changes_no_status() -> None:
    process = start("unread")
    wait_for(process, "under way")
    assert process.stdout is not None
    process.stdout.close()  # as `| head` does
    assert process.stderr is not None
    with process.stderr as stream:
        said = stream.read()
    assert process.wait() == 0, said
    assert "Traceback" not in said
    assert Path("results.pt").exists()


def test_a_full_disk_costs_the_state_but_not_the_run(
    small_disk: Path, tiny: Config, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_changes(tiny, n_embd=128, checkpoint_interval=2)
    data = CharDataset(text, config.block_size)
    record = Trainer(GPT(config), config, resume_root=small_disk).train(data, data)
    assert record.step == 6
    out = capsys.readouterr().out
    assert "warning: no state saved at iteration 2" in out
    assert "No space left on device; free some space" in out


def test_a_read_only_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir()
    bind = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if subprocess.run(bind, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        with pytest.raises(DataError, match="Read-only file system; choose a writable place"):
            files.check_writable(folder / "metrics" / "train.json")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


# --- Files from strangers ---


@pytest.fixture
def good(tiny: Config) -> Path:
    path = Path("good.pt")
    config = with_changes(tiny, vocab_size=256)
    weights = GPT(config).state_dict()
    save_checkpoint(path, weights, config, tokenizer=ByteTokenizer(), origin={"iter": 1})
    return path


def changed(path: Path, **entries: object) -> Path:
    """Return a copy of the checkpoint `path` with some entries replaced."""
    content = torch.load(path, weights_only=True) | entries
    torch.save(content, "changed.pt")
    return Path("changed.pt")


def test_a_good_file_is_read_back(good: Path) -> None:
    loaded = load_checkpoint(good, device=CPU)
    assert loaded.origin == {"iter": 1}
    assert not loaded.model.training


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("evil",)


def test_code_in_a_file_is_not_run(good: Path) -> None:
    torch.save({"model_state_dict": Evil(), "config": {}}, "evil.pt")
    with pytest.raises(CheckpointError, match="refused: it is not plain tensors and data"):
        load_checkpoint(Path("evil.pt"), device=CPU)
    Path("evil.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="damaged, or not a checkpoint"):
        load_checkpoint(Path("evil.pkl"), device=CPU)
    assert not Path("evil").exists()


def test_a_claim_of_a_trillion_weights_takes_no_memory(good: Path) -> None:
    config = torch.load(good, weights_only=True)["config"]
    huge = {**config, "n_embd": 96_000, "n_head": 1000, "n_layer": 10}
    stretched = torch.zeros(1).expand(256, 96_000)  # the right shape, four bytes large
    path = changed(good, config=huge, model_state_dict={"wte.weight": stretched})
    script = (
        "import resource, torch; resource.setrlimit(resource.RLIMIT_AS, (12 * 2**30,) * 2);"
        "from pathlib import Path; from nanogpt2.model.checkpoint import *;"
        f"load_checkpoint(Path({str(path)!r}), device=torch.device('cpu'))"
    )
    done = subprocess.run(
        [warm.executable(), "-c", script],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "CheckpointError: changed.pt: weights do not fit its configuration" in done.stderr


def test_a_stretched_tensor_is_no_weight(good: Path) -> None:
    weights = torch.load(good, weights_only=True)["model_state_dict"]
    weights["wte.weight"] = torch.zeros(1).expand(256, 16)
    with pytest.raises(CheckpointError, match=r"do not fit its configuration: wte.weight"):
        load_checkpoint(changed(good, model_state_dict=weights), device=CPU)


def test_a_packed_archive_is_refused(good: Path) -> None:
    with zipfile.ZipFile("bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 50_000_000)
    with pytest.raises(CheckpointError, match="damaged, or not a checkpoint"):
        load_checkpoint(Path("bomb.pt"), device=CPU)


def test_each_other_mistake_has_its_line(good: Path) -> None:
    weights = torch.load(good, weights_only=True)["model_state_dict"]
    config = torch.load(good, weights_only=True)["config"]
    fewer = {name: value for name, value in weights.items() if name != "ln_f.bias"}
    cases: dict[str, Path] = {
        "format version 9, and this code reads 1": changed(good, format_version=9),
    }
    for message, path in cases.items():
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(path, device=CPU)
    entries_by_message: dict[str, dict[str, object]] = {
        "it holds no model_state_dict": {"model_state_dict": None},
        "do not fit its configuration: ln_f.bias$": {"model_state_dict": fewer},
        "do not fit its configuration: extra$": {
            "model_state_dict": {**weights, "extra": torch.zeros(1)}
        },
        "do not fit its configuration: .* and 25 more": {"config": {**config, "n_embd": 18}},
        "config: n_head: found 5": {"config": {**config, "n_head": 5}},
        "not a tokenizer": {"tokenizer": {"name": "nosuch"}},
    }
    for message, entries in entries_by_message.items():
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(changed(good, **entries), device=CPU)


def test_a_truncated_or_missing_file_has_its_line(good: Path) -> None:
    content = good.read_bytes()
    for size in (0, 1, 100, len(content) // 2, len(content) - 1):
        Path("short.pt").write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"short.pt: damaged, or not a checkpoint"):
            load_checkpoint(Path("short.pt"), device=CPU)
    with pytest.raises(CheckpointError, match=r"none.pt: no such file"):
        load_checkpoint(Path("none.pt"), device=CPU)
    with pytest.raises(CheckpointError, match="damaged, or not a checkpoint"):
        load_checkpoint(Path(), device=CPU)


# --- Signals ---

RUN = """
import os, sys, threading, time
import torch
torch.set_num_threads(1)
from nanogpt2.config.config import get_config
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.base.system.errors import exit_with_one_line
from nanogpt2.model.gpt import GPT
from nanogpt2.train.trainer import Trainer
phase, *timer = sys.argv[1:]
config = get_config({"device": "cpu", "vocab_size": 64, "block_size": 16, "n_layer": 1,
    **({"n_embd": 96, "n_head": 6} if phase == "saving a state" else {"n_embd": 16, "n_head": 1}),
    "batch_size": 4,
    "max_iters": 30 if phase == "saving a state" else 20, "warmup_iters": 2,
    "checkpoint_interval": 1 if phase == "saving a state" else 10,
    "eval_interval": 10 if phase == "evaluation" else 100,
    "eval_iters": 150 if phase == "evaluation" else 1,
    "gradient_accumulation_steps": 15 if phase == "step" else 1})
data = CharDataset("the quick brown fox jumps over the lazy dog. " * 40, 16)
trainer = Trainer(GPT(config), config)

def say(*_):
    print("under way")
    hook.remove()
    if timer:  # in this process: on a busy machine both wait
        number, seconds = timer
        threading.Timer(float(seconds), os.kill, (os.getpid(), int(number))).start()

hook = trainer.model.h[0].register_forward_pre_hook(say)

def save(record, weights):
    if phase == "saving results":
        print("saving results")
        time.sleep(1)
    torch.save(weights, "results.pt")

with exit_with_one_line():
    record = trainer.train(data, data, save=save)
    if phase != "unread":
        print("end", sorted(record.history[-1].items()), trainer.model.wte.weight.sum().item())
"""


def start(phase: str, *timer: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [warm.executable(), "-u", "-c", RUN, phase, *timer],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    """Read what `process` prints up to `line`."""
    assert process.stdout is not None
    assert any(printed == line + "\n" for printed in process.stdout), process.communicate()


def test_a_signal_while_results_are_saved_comes_too_late_to_harm() -> None:
    process = start("saving results")
    wait_for(process, "saving results")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.splitlines()[-1].startswith("end")
    assert set(torch.load("results.pt", weights_only=True)) == {"final", "best"}


@pytest.mark.parametrize(
    ("phase", "number", "wait"),
    [
        ("step", signal.SIGTERM, 0.1),
        ("evaluation", signal.SIGINT, 0.2),
        ("saving a state", signal.SIGHUP, 0.05),
    ],
)
def test_a_signal_saves_and_ends_the_run_which_then_goes_on_to_the_bit(
    phase: str, number: signal.Signals, wait: float
) -> None:
    expected = start(phase).communicate()[0].splitlines()[-1]
    assert expected.startswith("end")
    process = start(phase, str(int(number)), str(wait))
    wait_for(process, "under way")
    asked = time.monotonic()
    out, err = process.communicate()
    assert time.monotonic() - asked < 5
    assert process.returncode == 1, out + err
    assert re.fullmatch(
        rf"interrupted by {number.name} after iteration \d+;"
        r" the same command goes on from there\n",
        err,
    )
    resumed = start(phase).communicate()[0].splitlines()
    assert any("going on from iteration" in line for line in resumed)
    assert resumed[-1] == expected
