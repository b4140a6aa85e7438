"""The Triton kernels compute what torch's operators do; without a GPU, in Triton's interpreter."""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import warm
from every import some
from imports import ROOT
from torch import Tensor, nn

from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT, RMSNorm
from nanogpt2.model.operators import TORCH

pytest.importorskip("triton", reason="needs Triton")

import interpreter  # noqa: F401

from nanogpt2.kernels import fp8
from nanogpt2.kernels import gpu as fused

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def operators() -> fused.FusedOperators:
    return fused.FusedOperators(DEVICE)


def draw(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to(DEVICE, dtype).requires_grad_()


def results(run: Callable[[], tuple[Tensor, ...]], *inputs: Tensor) -> list[Tensor]:
    """Return what `run` returns, and the gradients of `inputs` for drawn gradients of that."""
    found = run()
    grads = [draw(*x.shape, seed=50 + n, dtype=x.dtype).detach() for n, x in enumerate(found)]
    return [*found, *torch.autograd.grad(found, inputs, grads)]


def assert_close(runs: list[list[Tensor]], tolerance: float) -> None:
    """Check that the results of the first run are those of the second."""
    found, expected = runs
    for mine, right in zip(found, expected, strict=True):
        assert mine.shape == right.shape
        scale = right.float().abs().max()
        assert (mine.float() - right.float()).abs().max() <= tolerance * scale


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layer": lambda C: nn.LayerNorm(C, bias=False),
    "layer, bias": nn.LayerNorm,
    "rms": lambda C: RMSNorm(C, eps=1e-5),
}


@pytest.mark.parametrize(
    ("kind", "branched", "width"),
    some(
        product(NORMS, [True, False], [48, 768]),
        *product(NORMS, [True, False], [48]),
        ("layer, bias", True, 768),
    ),
)
def test_add_norm_is_torchs(
    operators: fused.FusedOperators, kind: str, branched: bool, width: int
) -> None:
    norm = NORMS[kind](width).to(DEVICE)
    for n, parameter in enumerate(norm.parameters()):
        parameter.data = draw(width, seed=7 + n).data
    x, branch = draw(3, 13, width), draw(3, 13, width, seed=2) if branched else None
    inputs = [x, *norm.parameters(), *([] if branch is None else [branch])]
    run = [
        results(lambda: each.add_norm(x, branch, norm, dropout=0.0), *inputs)  # noqa: B023
        for each in (operators, TORCH)
    ]
    assert_close(run, 1e-5)


def test_add_norm_casts_under_autocast(operators: fused.FusedOperators) -> None:
    norm, x = RMSNorm(64, eps=1e-5).to(DEVICE), draw(5, 64)
    branch = draw(5, 64, seed=2, dtype=torch.bfloat16)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        total, y = operators.add_norm(x, branch, norm, dropout=0.0)
    assert (total.dtype, y.dtype) == (torch.float32, torch.bfloat16)
    expected = TORCH.add_norm(x, branch.float(), norm, dropout=0.0)
    assert_close([[total, y], list(expected)], 1e-2)
    assert torch.autograd.grad(y.sum(), branch)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("rate", some([0.1, 0.6], 0.1))
def test_a_mask_is_an_independent_draw_for_each_element_call_and_seed(
    operators: fused.FusedOperators, rate: float
) -> None:
    norm, n = RMSNorm(256, eps=1e-5).to(DEVICE), 40
    zero, branch = torch.zeros(n, 256, device=DEVICE), torch.ones(n, 256, device=DEVICE)
    kept = []
    for seed in (1, 2):
        operators.seed(seed)
        kept += [operators.add_norm(zero, branch, norm, dropout=rate)[0] for _ in range(2)]
    values = torch.stack(kept).cpu() * (1 - rate)
    assert sorted(set(values.flatten().tolist())) == pytest.approx([0.0, 1.0])
    deviation = (rate * (1 - rate) / (n * 256)) ** 0.5
    assert ((values.mean(dim=(1, 2)) - (1 - rate)).abs() < 4 * deviation).all()
    limit = 4.5 / (n * 256) ** 0.5
    flat = values.flatten(1)
    shifted = [flat[0].roll(by) for by in (1, 2, 3, 4, 255, 256, 257)]
    for other in [*flat[1:], *shifted]:  # other calls, another seed, and neighbours
        assert torch.corrcoef(torch.stack([flat[0], other]))[0, 1].abs() < limit
    operators.seed(1)
    assert torch.equal(operators.add_norm(zero, branch, norm, dropout=rate)[0], kept[0])


def test_the_gradient_of_dropout_has_the_mask_of_the_forward_pass(
    operators: fused.FusedOperators,
) -> None:
    norm, x, branch = RMSNorm(96, eps=1e-5).to(DEVICE), draw(9, 96), draw(9, 96, seed=2)
    total, _ = operators.add_norm(x, branch, norm, dropout=0.4)
    (dbranch,) = torch.autograd.grad(total, branch, torch.ones_like(total), retain_graph=True)
    assert torch.allclose(total - x, branch * dbranch, atol=1e-5)


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3, 17, 8), (1, 5, 6, 64)])
def test_rotate_is_torchs(
    operators: fused.FusedOperators,
    shape: tuple[int, int, int, int],
    dtype: torch.dtype,
    normed: bool,
) -> None:
    B, H, T, D = shape  # small numbers, so that another eps would show
    packed = (0.05 * draw(B, T, 3 * H, D).detach()).to(dtype).requires_grad_()  # as of c_attn
    turns = draw(T, D // 2, seed=3).detach()
    angles = turns.cos()[None], turns.sin()[None]
    run = [
        results(
            lambda: (each.rotate(packed[:, :, H : 2 * H].transpose(1, 2), angles, normed=normed),),  # noqa: B023
            packed,
        )
        for each in (operators, TORCH)
    ]
    assert_close(run, 1e-5 if dtype == torch.float32 else 3e-2)


def test_embed_is_torchs(operators: fused.FusedOperators) -> None:
    tokens, positions = draw(11, 48), draw(9, 48, seed=2)
    idx = torch.arange(3 * 10, device=DEVICE).view(3, 10)[:, 1:] * 7 % 11  # rows are not adjacent
    run = [
        results(lambda: (each.embed(idx, tokens, positions),), tokens, positions)  # noqa: B023
        for each in (operators, TORCH)
    ]
    assert_close(run, 1e-6)
    unknown = torch.tensor([[0, 11, -1]], device=DEVICE)
    x = operators.embed(unknown, tokens, positions[:3])
    assert x.isfinite().all(dim=-1).tolist() == [[True, False, False]]


@pytest.mark.parametrize("softcap", [0.0, 3.0])
@pytest.mark.parametrize(
    ("rows", "vocabulary", "memory"), [(5, 90, 2**31), (9, 90, 2500), (2, 5000, 2**31)]
)
def test_cross_entropy_is_torchs_whatever_the_memory_for_logits(
    operators: fused.FusedOperators, softcap: float, rows: int, vocabulary: int, memory: int
) -> None:
    operators.logits_bytes = memory
    x, weight = draw(2, rows, 24), draw(vocabulary, 24, seed=2)
    targets = torch.arange(2 * rows, device=DEVICE).view(2, rows) * 7 % vocabulary
    targets[0, 1] = -1
    run = [
        results(
            lambda: (each.cross_entropy(x, weight, targets, softcap=softcap),),  # noqa: B023
            x,
            weight,
        )
        for each in (operators, TORCH)
    ]
    assert_close(run, 1e-5)
    with torch.no_grad():
        assert torch.allclose(
            operators.cross_entropy(x, weight, targets, softcap=softcap), run[1][0]
        )


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_a_model_has_the_loss_and_gradients_of_torchs_operators(
    tiny: Config, architecture: str, operators: fused.FusedOperators
) -> None:
    changes = {"architecture": architecture, "dropout": 0.0, "zero_init": False}
    config = get_config({**tiny.to_dict(), **changes})
    idx = torch.randint(64, (2, 9), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    found = []
    for each in (operators, TORCH):
        model = GPT(config).to(DEVICE)
        model.use(each)
        loss = model.loss(idx[:, :-1], idx[:, 1:])
        found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    assert_close(found, 1e-4)
    assert torch.allclose(model(idx[:, :-1], idx[:, 1:])[1], found[0][0])


@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_torchs(operators: fused.FusedOperators, bias: bool) -> None:
    layer, x = nn.Linear(24, 40, bias=bias).to(DEVICE), draw(2, 7, 24)
    inputs = [x, *layer.parameters()]
    run = [results(lambda: (each.linear(x, layer),), *inputs) for each in (operators, TORCH)]  # noqa: B023
    assert_close(run, 1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("in_parts", [True, False])
def test_a_linear_layer_in_parts_is_torchs(bias: bool, in_parts: bool) -> None:
    layer, x = nn.Linear(24, 40, bias=bias).to(DEVICE), draw(2, 7, 24)
    inputs = [x, *layer.parameters()]
    run = [
        results(lambda: each.split_linear(x, layer, [24, 8, 8]), *inputs)  # noqa: B023
        for each in (fused.FusedOperators(DEVICE, in_parts=in_parts), TORCH)
    ]
    assert_close(run, 1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_gelu_mlp_is_torchs(operators: fused.FusedOperators, bias: bool) -> None:
    layers = nn.Linear(24, 40, bias=bias).to(DEVICE), nn.Linear(40, 16, bias=bias).to(DEVICE)
    x = draw(2, 7, 24)
    inputs = [x, *layers[0].parameters(), *layers[1].parameters()]
    run = [
        results(lambda: (each.gelu_mlp(x, *layers),), *inputs)  # noqa: B023
        for each in (operators, TORCH)
    ]
    assert_close(run, 1e-5)


# --- Eight bits ---

ROUNDED = pytest.mark.skipif(DEVICE.type == "cpu", reason="the interpreter rounds eight bits wrong")
MULTIPLIED = pytest.mark.skipif(DEVICE.type == "cpu", reason="no CPU multiplies eight bits")


def assert_rounded(quantized: Any, x: Tensor) -> None:
    """Check that `quantized` is `x` rounded to e4m3, with the highest number at its end."""
    assert quantized.values.dtype == torch.float8_e4m3fn
    error = (quantized.values.float() * quantized.scale - x.float()).abs()
    assert (error <= torch.maximum(x.float().abs() * 2**-4, quantized.scale * 2**-10) * 1.01).all()


@ROUNDED
def test_eight_bits_keep_each_row_to_its_own_scale() -> None:
    x = draw(6, 100).detach() * 10.0 ** torch.arange(-3, 3, device=DEVICE)[:, None]
    quantized = fp8.quantize_rows(x)
    assert_rounded(quantized, x)
    assert torch.equal(
        quantized.values.float().abs().amax(1), torch.full((6,), 448.0, device=DEVICE)
    )


@ROUNDED
def test_a_weight_has_the_same_eight_bits_when_transposed() -> None:
    weight = draw(80, 208).detach()
    plain, transposed = fp8.quantize_weight(weight)
    assert_rounded(plain, weight)
    assert torch.equal(plain.values.view(torch.uint8).t(), transposed.values.view(torch.uint8))
    scales = torch.cat([plain.scale, transposed.scale])
    assert torch.equal(scales, (weight.abs().max() / 448).expand(80 + 208, 1))


@ROUNDED
@pytest.mark.parametrize("C", [64, 300])
def test_gelu_in_eight_bits_is_torchs(C: int) -> None:
    x, dy = draw(7, C).detach() * 2, draw(7, C, seed=2).detach()
    expected = F.gelu(x, approximate="tanh")
    gradient = torch.ops.aten.gelu_backward(dy, x, approximate="tanh")
    for (y, quantized), right in zip(
        (fp8.gelu(x), fp8.gelu(x, dy)), (expected, gradient), strict=True
    ):
        assert torch.allclose(y, right, rtol=1e-4, atol=1e-5)
        assert_rounded(quantized, y)


@MULTIPLIED
@pytest.mark.parametrize("bias", [True, False])
def test_layers_in_eight_bits_are_near_torchs(bias: bool) -> None:
    layers = [
        nn.Linear(*shape, bias=bias).to(DEVICE, torch.bfloat16)
        for shape in ((256, 512), (512, 256))
    ]
    x = draw(300, 256, dtype=torch.bfloat16)
    weights = [weight for layer in layers for weight in layer.parameters()]
    both = fp8.EightBitOperators(DEVICE), TORCH
    first = [x, *layers[0].parameters()]
    linear = [results(lambda: (each.linear(x, layers[0]),), *first) for each in both]  # noqa: B023
    mlp = [results(lambda: (each.gelu_mlp(x, *layers),), x, *weights) for each in both]  # noqa: B023
    for run, tolerance in ((linear, 0.05), (mlp, 0.07)):
        for mine, right in zip(*run, strict=True):
            assert 0 <= (mine.float() - right.float()).norm() < tolerance * right.float().norm()


def test_every_kernel_compiles_for_a_gpu_of_the_hopper_generation() -> None:
    """The interpreter takes what the compiler does not; Triton keeps what is compiled."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "tests", *sys.path])),
    }
    environment.pop("TRITON_INTERPRET", None)
    command = [warm.executable(), str(ROOT / "tests/kernels/compile_kernels.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    training = "add_norm_backward add_norm_forward cross_entropy_kernel embed_kernel"
    training += " rotate_kernel scale_kernel"
    eight_bits = "gelu_quantize_kernel quantize_rows_kernel quantize_weight_kernel"
    decoding = "attend embed linear pick sum_parts"
    assert done.stdout.split() == sorted(f"{training} {eight_bits} {decoding}".split())
