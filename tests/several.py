"""What the tests of several processes run in each of them.

python several.py 2 cpu           # two processes; each writes what it found into N.json
python several.py 4 cpu shards    # four; what shards gave alone, into the same files
"""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from nanogpt2.device.launch import run_as_group

if __name__ == "__main__" and run_as_group(int(sys.argv[1])):
    sys.exit()

import torch
from every import some

from nanogpt2.base.system.errors import NanoGPT2Error, TrainingError, exit_with_one_line
from nanogpt2.config.config import Config, get_config
from nanogpt2.device.group import GROUPS, SINGLE, Group, joined
from nanogpt2.kernels import choose
from nanogpt2.kernels.checks.check import is_torchs, use_torchs
from nanogpt2.kernels.checks.trials import TRIALS
from nanogpt2.model.checkpoint import hash_weights
from nanogpt2.model.gpt import GPT
from nanogpt2.model.operators import Operators
from nanogpt2.tokens.dataset import CharDataset, load_split
from nanogpt2.train.distil import choose as distil
from nanogpt2.train.distil.teachers import Teacher
from nanogpt2.train.estimate import estimate_loss
from nanogpt2.train.step import Stepper
from nanogpt2.train.trainer import Trainer
from nanogpt2.train.unfinished import resume
from nanogpt2.train.unfinished.resume import StateFiles

TEXT = "the quick brown fox jumps over the lazy dog. " * 40
STEPS = 7
TINY = {
    "vocab_size": 64,
    "block_size": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 16,
    "dropout": 0.0,
    "batch_size": 8,
    "max_iters": STEPS,
    "warmup_iters": 2,
    "eval_interval": STEPS,
    "eval_iters": 3,  # an odd number: two processes share it unequally
    "learning_rate": 1e-2,
}
# Newton-Schulz rounds to bfloat16, so that the last bit of a gradient can move an update by 2^-8 of
# it, whatever made the difference; at this rate that stays small beside the loss.
MUON = {"optimizer": "muon", "architecture": "modern", "zero_init": False}
MUON["muon_learning_rate"] = 2e-3
CASES: dict[str, dict[str, Any]] = {
    "adamw": {},
    "adamw, accumulated": {"batch_size": 4, "gradient_accumulation_steps": 4},
    "muon": MUON,
    "muon, accumulated": {**MUON, "batch_size": 4, "gradient_accumulation_steps": 4},
    "fsdp": {
        "parallel": "fsdp",
        "ema_decay": 0.9,
        "gradient_accumulation_steps": 2,
        "mlp_conv": 3,  # taps, which two processes cannot share evenly
    },
    "muon, fsdp": {**MUON, "parallel": "fsdp", "n_layer": 3, "gradient_accumulation_steps": 2},
    "normuon, fsdp": {
        **MUON,
        **{"optimizer": "normuon", "architecture": "gpt2", "parallel": "fsdp"},
        **{"n_embd": 15, "n_head": 3},  # rows that two processes cannot share evenly
    },
    "fsdp, 16 bits": {
        **{"parallel": "fsdp", "precision": "bf16"},
        **{"batch_size": 4, "gradient_accumulation_steps": 4},
        "learning_rate": 1e-3,  # as with Muon: a last bit can move what a weight is rounded to
    },
    "teachers": {"teachers": ["first", "second"], "teacher_temperature": 2.0},
    "teachers, fsdp": {"teachers": ["first"], "parallel": "fsdp"},
}
CHOSEN = some(
    CASES,
    *("adamw", "muon, accumulated", "fsdp", "muon, fsdp", "normuon, fsdp", "fsdp, 16 bits"),
    "teachers, fsdp",
)
# Where the number of processes changes no bit.
SHARDED: dict[str, dict[str, Any]] = {
    "adamw": {"dropout": 0.2, "gradient_accumulation_steps": 2, "ema_decay": 0.9},
    "muon": {**MUON, "mixed_precision": True, "grad_clip": 0.1, "mtp_weight": 0.3},
    "teachers": {"teachers": ["first"], "lora_rank": 2},
}
SHARDS = {"shards": 4}
SPLITS = ("train", "val")
DATA = CharDataset(TEXT, 16)


def case_config(case: dict[str, Any], device: str) -> Config:
    return get_config({**TINY, **case, "device": device})


def losses(config: Config, group: Group = SINGLE) -> list[list[float]]:
    """Return (loss, gradient norm) of all steps; then evaluations of the weights and their mean."""
    return bits(config, group)[0]


def bits(config: Config, group: Group = SINGLE) -> tuple[list[list[float]], str]:
    """Return what `losses` does, and the SHA-256 of the weights."""
    stepper = Stepper(GPT(config), config, make_teachers(config), group=group)
    found = [stepper.step(DATA, step).figures.tolist() for step in range(STEPS)]
    own = estimate_loss(stepper, DATA)
    with stepper.ema.applied():
        found.append([own, estimate_loss(stepper, DATA)])
    stepper.release()
    return found, hash_weights(stepper.model.state_dict(), whole=group.whole)


def kept_bytes(config: Config, group: Group) -> int:
    """Return how many bytes of the blocks' matrices are kept from forward to backward."""
    stepper = Stepper(GPT(config), config, group=group)
    shapes = [sorted(weight.shape) for weight in stepper.model.h.parameters() if weight.dim() == 2]
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    idx = torch.zeros(8, config.block_size, dtype=torch.int64, device=stepper.device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), stepper.autocast():
        stepper.model.loss(idx, idx)
    storages = [each.untyped_storage() for each in kept if sorted(each.shape) in shapes]
    assert len(storages) >= len(shapes)
    return sum(storage.nbytes() for storage in storages)


class Product(torch.autograd.Function):
    """Of x and a weight, whose gradient is of more bits than they: as kernels for a GPU have it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight = ctx.saved_tensors
        return dy @ weight, dy.float().t() @ x.float()


class Layer(torch.nn.Linear):
    """A layer of one product."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = Product.apply(x, self.weight)  # type: ignore[no-untyped-call]
        return y


class Layers(torch.nn.Sequential):
    """Layers one after the other, which can be trained."""

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self(x)
        return y.sum()


def gradients(device: str, group: Group) -> tuple[list[float], list[float]]:
    """Return a gradient of a weight that is gathered in 16 bits, and the true one."""
    layer = Layer(4, 1, bias=False)
    model, x = Layers(layer), torch.linspace(0.1, 1, 12, device=device).view(3, 4).bfloat16()
    group.place(model, [[layer]], x.device, x.dtype)
    model.loss(x).backward()  # type: ignore[no-untyped-call]
    assert layer.weight.grad is not None
    return group.whole(layer.weight.grad).flatten().tolist(), x.float().sum(0).tolist()


def sharded_bits(device: str, group: Group = SINGLE) -> dict[str, Any]:
    """Return the bits of each case of SHARDED, as JSON has them."""
    cases = {name: case_config({**case, **SHARDS}, device) for name, case in SHARDED.items()}
    return {name: [*bits(config, group)] for name, config in cases.items()}


def make_teachers(config: Config) -> list[Teacher]:
    """Return teachers of other shapes by the names in `config`."""
    shape = {"n_embd": 32, "n_head": 4, "zero_init": False, "device": config.device}
    configs = [get_config({**TINY, **shape, "seed": len(name)}) for name in config.teachers]
    models = [GPT(each).requires_grad_(False).eval() for each in configs]
    return [Teacher(str(n), model, DATA.tokenizer, "") for n, model in enumerate(models)]


class CrashError(Exception):
    """Stands for the end of all processes: nothing catches it."""


def poisoned(config: Config, group: Group) -> GPT:
    """Return a model whose loss becomes NaN in process 1, in the third step."""
    model, passes = GPT(config), iter(range(10**6))

    def poison(block: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        now = block.training and next(passes) == 2
        return (arguments[0] * torch.nan, *arguments[1:]) if now and group.rank == 1 else None

    model.h[0].register_forward_pre_hook(poison)  # a fused norm calls no hook of its module
    return model


def cramped(config: Config, group: Group) -> GPT:
    """Return a model that has memory for no more than one sequence in process 1."""
    model = GPT(config)

    def refuse(_: object, arguments: tuple[torch.Tensor, ...]) -> None:
        if group.rank == 1 and len(arguments[0]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.h[0].register_forward_pre_hook(refuse)
    return model


def train(model: GPT, group: Group, *, crash: int | None = None, **options: Any) -> Trainer:
    """Train `model`, and return what trained it; all processes end before step `crash`."""
    trainer = Trainer(model, model.config, group=group)
    step = trainer.stepper.step

    def crashing(dataset: CharDataset, number: int, **checks: Any) -> Any:
        if number == crash:
            raise CrashError
        return step(dataset, number, **checks)

    trainer.stepper.step = crashing  # type: ignore[method-assign, assignment]
    trainer.train(DATA, DATA, **options)
    return trainer


def weights(trainer: Trainer) -> str:
    """Return the SHA-256 of the whole weights."""
    return hash_weights(trainer.model.state_dict(), whole=trainer.group.whole)


def error_of(work: Callable[[], object]) -> str:
    """Return the error that `work` raises, in words."""
    try:
        work()
    except (NanoGPT2Error, CrashError) as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def resumed(config: Config, group: Group) -> list[str]:
    """Return the weights of an unbroken run, and of one that was cut off twice."""
    unbroken = weights(train(GPT(config), group))
    for crash in (5, 6):
        cut_off = partial(train, GPT(config), group, crash=crash)
        assert error_of(cut_off) == "CrashError: "
    return [unbroken, weights(train(GPT(config), group))]


def moved(config: Config, group: Group) -> dict[str, Any]:
    """Return what is said of, and the losses of, a run of a group that goes on in one process.

    Then in the group again.
    """
    error_of(lambda: train(GPT(config), group, crash=3))
    with redirect_stdout(StringIO()) as printed:
        group.from_main(lambda: error_of(lambda: train(GPT(config), SINGLE, crash=6)))
        history = train(GPT(config), group).record.history
    said = [line for line in printed.getvalue().splitlines() if line.startswith("going on")]
    return {"said": group.from_main(lambda: said), "losses": history[-1]}


def unbroken(config: Config, group: Group) -> str:
    """Return the weights that a stage's run of `config` should end with."""
    train, val = (load_split(Path("data/prepared"), name, config.block_size) for name in SPLITS)
    trainer = Trainer(GPT(config), config, group=group)
    trainer.train(train, val)
    return weights(trainer)


def refused(config: Config, group: Group) -> str:
    """Return the error of a run that is under way elsewhere."""
    error_of(lambda: train(GPT(config), group, crash=5))
    (folder,) = (path for path in Path(".resume").iterdir() if path.is_dir())
    resume.LOCK_SECONDS = 0.1
    with StateFiles(folder).locked() if group.is_main else nullcontext():
        return error_of(lambda: train(GPT(config), group))


def agreed(config: Config, group: Group) -> list[Any]:
    """Return which operators are torch's where one is refused in process 1 alone, and who says so.

    The loss that follows teachers is refused there too.
    """
    check, names, lines = vars(choose)["check_operators"], list[str](), list[str]()

    def refuse(operators: Operators, *arguments: Any, **options: Any) -> set[str]:
        refused: set[str] = check(operators, *arguments, **options)
        names.extend(name for name in TRIALS if not is_torchs(operators, name))
        use_torchs(operators, names[0])
        return refused

    def fail(*_: object) -> str:
        return "fails here"

    teachers = get_config(config, teachers=["first"])
    with ExitStack() as stack:
        if group.rank == 1:
            stack.enter_context(patch.object(choose, "check_operators", refuse))
            stack.enter_context(patch.object(distil, "check_loss", fail))
        own = make_teachers(teachers)
        stepper = Stepper(GPT(teachers), teachers, own, say=lines.append, group=group)
    rows = stepper.objective.soft_loss.rows  # type: ignore[attr-defined]
    said = [line for line in lines if "in another process" in line]
    assert len(said) == (0 if group.rank == 1 else 3), lines  # of the model, its teacher, the loss
    torchs = [name for name in TRIALS if is_torchs(stepper.operators, name)]
    return [torchs, type(rows).__name__]


def check(config: Config, group: Group) -> dict[str, Any]:
    """Return what this process found in runs that go wrong, or on, in their ways."""
    saved: list[list[str]] = []

    def save(record: object, results: dict[str, Any]) -> None:
        saved.append(sorted(results))

    def fail(record: object, results: object) -> None:
        raise TrainingError("no room")

    dropout = get_config({**config.to_dict(), "dropout": 0.2, "checkpoint_interval": 3})
    sharded = {**dropout.to_dict(), "parallel": "fsdp", "optimizer": "normuon", "ema_decay": 0.9}
    spread = get_config(sharded, n_layer=1, max_iters=8, eval_iters=2, eval_interval=4)
    early = get_config(
        {**config.to_dict(), "eval_interval": 1, "patience": 1, "learning_rate": 0.5}
    )
    found: dict[str, Any] = {
        "refused": refused(dropout, group),  # first, as it looks for the only unfinished run
        "not finite": error_of(lambda: train(poisoned(config, group), group)),
        "agreed": agreed(config, group),
        "no room": error_of(lambda: train(GPT(config), group, save=fail)),
        "memory": train(cramped(config, group), group, save=save).record.history,
        "patience": train(GPT(early), group).record.step,
        "resumed": resumed(dropout, group),
    }
    if Path("my.yaml").exists():
        found["unbroken"] = unbroken(get_config("my.yaml"), group)
    shards = GROUPS["fsdp"](group.rank, group.size)
    narrow = case_config({**CASES["fsdp, 16 bits"], "vocab_size": 40}, config.device)
    found["kept"] = kept_bytes(narrow, shards)  # of blocks alone: the head has another shape
    found["gradients"] = gradients(config.device, shards)
    moves = get_config(config.to_dict(), parallel="fsdp", checkpoint_interval=3)
    found["moved"] = moved(moves, shards)
    return {**found, "resumed, fsdp": resumed(spread, shards), "saved": saved}


def main(device: str, shards_alone: bool) -> None:
    config = case_config(SHARDS, device)
    with joined(config) as group:
        found: dict[str, Any] = {"shards": sharded_bits(device, group)}
        write(group, found)
        if shards_alone:
            return
        config = case_config({}, device)
        for name in CHOSEN:
            own = case_config(CASES[name], device)
            found[name] = losses(own, GROUPS[own.parallel](group.rank, group.size))
        found |= check(config, group)
        write(group, found)
        if group.rank == 1:
            raise TrainingError("process 1 alone has this to say")


def write(group: Group, found: dict[str, Any]) -> None:
    Path(f"{group.rank}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    with exit_with_one_line():
        main(sys.argv[2], "shards" in sys.argv)
