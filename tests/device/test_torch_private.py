"""The installed torch has the private names that are relied on, and they do what is relied on."""

import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import warm
from imports import ROOT
from torch import Tensor

from nanogpt2.device import torch_private

PRIVATE = (
    r"torch\._[a-z]|torch\.cpu\._|torch\.ops\.|graphsafe_|utils\.deterministic|inspect\.unwrap"
)
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_private_names_stand_in_one_module() -> None:
    for path in (ROOT / "nanogpt2").rglob("*.py"):
        code = re.sub(r'""".*?"""', "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert path.name == "torch_private.py" or not re.search(PRIVATE, code), path


@pytest.mark.parametrize("around", [False, True])
def test_a_module_is_told_of_a_move_and_of_nothing_else(around: bool) -> None:
    class Counted(torch_private.Movable):
        moves = 0

        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)

        def moved(self) -> None:
            self.moves += 1

    module = Counted()
    outer = torch.nn.Sequential(module) if around else module
    outer.to(torch.float64)
    outer.cpu()
    assert module.moves == 0
    outer.to("meta")
    assert module.moves == 1


def lists() -> tuple[list[Tensor], list[Tensor]]:
    shapes = (3,), (2, 4), (5, 1)
    return [draw(*s) for s in shapes], [draw(*s, seed=2) for s in shapes]


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("div", torch.tensor(4.0), lambda x, _: x / 4),
        ("sub", None, lambda x, y: x - y),
        ("lerp", (None, 0.25), lambda x, y: torch.lerp(x, y, 0.25)),
        ("mul_", torch.tensor(3.0), lambda x, _: x * 3),
        ("mul_", 0.5, lambda x, _: x * 0.5),
        ("add_", None, lambda x, y: x + y),
        ("copy_", None, lambda _, y: y),
        ("lerp_", (None, 0.25), lambda x, y: torch.lerp(x, y, 0.25)),
    ],
)
def test_foreach_does_to_each_tensor_what_is_done_to_one(
    name: str, given: object, expected: object
) -> None:
    first, second = lists()
    right = [expected(x.clone(), y) for x, y in zip(first, second, strict=True)]  # type: ignore[operator]
    given = given if isinstance(given, tuple) else (given,)
    arguments = [second if value is None else value for value in given]
    found = getattr(torch_private, f"foreach_{name}")(first, *arguments)
    for mine, theirs in zip(first if name.endswith("_") else found, right, strict=True):
        assert torch.equal(mine, theirs)


def test_foreach_copies_from_another_dtype() -> None:
    wide, _ = lists()
    narrow = [torch.empty_like(x, dtype=torch.bfloat16) for x in wide]
    torch_private.foreach_copy_(narrow, wide)
    assert all(torch.equal(x, y.bfloat16()) for x, y in zip(narrow, wide, strict=True))


METHODS = ("add_param_group", "state_dict", "load_state_dict", "step")


@pytest.mark.parametrize("name", METHODS)
def test_an_optimizers_method_is_torchs_own_without_a_wrapper(name: str) -> None:
    method = torch_private.unwrap(getattr(torch.optim.AdamW, name))
    assert not hasattr(method, "__wrapped__")
    assert method.__name__ == name
    assert method.__module__.startswith("torch.optim.")


def test_unwrapped_methods_work_and_do_not_import_dynamo() -> None:
    lines = [
        "import sys, torch",
        "from nanogpt2.device.torch_private import unwrap",
        f"own = {{name: unwrap(getattr(torch.optim.AdamW, name)) for name in {METHODS}}}",
        "plain = type('Plain', (torch.optim.AdamW,), own | {'step': torch.no_grad()(own['step'])})",
        "weight = torch.nn.Parameter(torch.ones(3))",
        "optimizer = plain([weight], lr=0.1, fused=True)",
        "weight.grad = torch.ones(3)",
        "optimizer.step()",
        "state = optimizer.state_dict()",
        "optimizer.load_state_dict(state)",
        "assert weight[0] < 1 and len(state['state']) == 1",
        "sys.exit('torch._dynamo' in sys.modules)",
    ]
    subprocess.run([warm.executable(), "-c", "\n".join(lines)], cwd=ROOT, check=True)


def test_scaled_products_take_a_scale_for_each_row() -> None:
    arguments = [each.name for each in torch.ops.aten._scaled_mm.default._schema.arguments]
    assert arguments[:4] == ["self", "mat2", "scale_a", "scale_b"]
    assert {"out_dtype", "use_fast_accum"} <= set(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (draw(*shape).to(device, torch.float8_e4m3fn) for shape in ((16, 32), (48, 32)))
    scales = draw(16, 1).abs().to(device), draw(1, 48).abs().to(device)
    try:
        found = torch_private.scaled_mm(a, b.t(), *scales, torch.bfloat16)
    except RuntimeError as error:
        pytest.skip(f"this device multiplies no eight bits by rows: {str(error)[:60]}")
    exact = (a.float() * scales[0]) @ (b.float().t() * scales[1])
    assert (found.float() - exact).abs().max() < 0.01 * exact.abs().max()


def test_the_gradient_of_an_embedding_is_autograds() -> None:
    table, idx = draw(7, 4).requires_grad_(), torch.tensor([[0, 6, 2], [2, 2, 0]])
    dx = draw(2, 3, 4, seed=2)
    (expected,) = torch.autograd.grad((F.embedding(idx, table) * dx).sum(), table)
    assert torch.allclose(torch_private.embedding_gradient(dx, idx, 7), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_gelu_is_autograds_and_lies_where_asked(dtype: torch.dtype) -> None:
    x, dy = draw(40).to(dtype).requires_grad_(), draw(40, seed=2).to(dtype)
    (expected,) = torch.autograd.grad((F.gelu(x, approximate="tanh") * dy).sum(), x)
    out = torch.empty_like(dy)
    assert torch_private.gelu_gradient(dy, x.detach(), out) is out
    assert torch.equal(out, expected)


def test_the_processor_is_asked_for_bfloat16() -> None:
    assert hasattr(torch.cpu, "_is_avx512_bf16_supported")
    assert hasattr(torch.cpu, "_is_amx_tile_supported")
    known = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not known.exists():
        pytest.skip("needs /proc/cpuinfo of an x86 processor")
    flags = set(re.findall(r"\w+", known.read_text(encoding="utf-8")))
    assert torch_private.cpu_has_bf16() is bool(flags & {"avx512_bf16", "amx_tile"})


def test_deterministic_mode_can_leave_new_memory_as_it_is() -> None:
    settings: Any = torch.utils.deterministic
    before, mode = settings.fill_uninitialized_memory, torch.get_deterministic_debug_mode()
    try:
        torch.set_deterministic_debug_mode("error")
        settings.fill_uninitialized_memory = True
        assert torch.empty(1000).isnan().all()
        torch_private.leave_memory_unfilled()
        kept = torch.ones(1000)
        address = kept.data_ptr()
        del kept
        again = torch.empty(1000)
        assert again.data_ptr() != address or (again == 1).sum() > 900
        assert settings.fill_uninitialized_memory is False
    finally:
        torch.set_deterministic_debug_mode(mode)
        settings.fill_uninitialized_memory = before


def test_generators_share_their_state_where_a_graph_is_safe() -> None:
    for name in ("graphsafe_get_state", "graphsafe_set_state"):
        assert callable(getattr(torch.Generator, name))


@CUDA
def test_a_renewed_generator_draws_what_its_seed_says() -> None:
    torch.cuda.manual_seed(5)
    expected = torch.rand(3, device="cuda")
    torch.cuda.manual_seed(5)
    torch_private.renew_generator()
    assert torch.equal(torch.rand(3, device="cuda"), expected)
