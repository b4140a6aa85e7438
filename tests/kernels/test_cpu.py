"""The compiled operators compute what torch's do, and their masks are independent draws."""

import copy
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from every import some
from torch import Tensor

from nanogpt2.base.system.errors import DataError, DeviceError
from nanogpt2.config.config import Config, get_config
from nanogpt2.device import compiler as toolchain
from nanogpt2.device import device, torch_private
from nanogpt2.kernels.cpu import operators as cpu_operators
from nanogpt2.kernels.cpu.operators import CompiledOperators, compile_operators
from nanogpt2.model.checkpoint import hash_weights
from nanogpt2.model.gpt import GPT, Attention
from nanogpt2.model.operators import TORCH, Operators
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.trainer import Trainer


def compiled(head_size: int) -> CompiledOperators:
    try:
        return compile_operators(head_size)
    except DeviceError as error:
        pytest.skip(str(error))


def draw(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.to(dtype).requires_grad_()


def gradients(y: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Return `y` and the gradients of a random sum of it."""
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(9))
    return [y, *torch.autograd.grad((y.float() * weights).sum(), inputs)]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    scale = max(theirs.float().abs().max().item() for theirs in expected)  # some may be 0 exactly
    for mine, theirs in zip(found, expected, strict=True):
        assert (mine.float() - theirs.float()).abs().max().item() <= tolerance * scale


def qkv(B: int, H: int, G: int, T: int, D: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return q, k and v as the model has them: strided views of one projection."""
    whole = draw(B, T, H + 2 * G, D, dtype=dtype)
    q, k, v = (part.transpose(1, 2) for part in torch.split(whole, [H, G, G], dim=2))
    return q, k, v


Shape = tuple[int, int, int, int, int]
SHAPES: list[Shape] = [
    (2, 4, 4, 128, 16),
    (2, 4, 2, 33, 24),
    (1, 2, 1, 1, 5),
    (1, 3, 3, 50, 64),
    (3, 2, 2, 16, 2),
]


@pytest.mark.parametrize("shape", some(SHAPES, *SHAPES[:-1]), ids=str)  # each compiles its own
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_attention_is_torchs(shape: Shape, dtype: torch.dtype, tolerance: float) -> None:
    operators, (q, k, v) = compiled(shape[-1]), qkv(*shape, dtype=dtype)
    found = gradients(operators.attention(q, k, v, dropout=0.0), q, k, v)
    wide = [x.detach().float().requires_grad_() for x in (q, k, v)]
    assert_close(found, gradients(TORCH.attention(*wide, dropout=0.0), *wide), tolerance)


@pytest.mark.parametrize("shape", [(2, 4, 2, 32, 32), (1, 2, 2, 37, 64)], ids=str)
def test_attention_with_dropout_is_that_of_its_mask(shape: Shape) -> None:
    B, H, G, T, D = shape
    operators, (q, k, v) = compiled(D), qkv(*shape, dtype=torch.float32)
    # With equal scores and the identity as values, row i of the output is its mask over i + 1.
    operators.seed(3)
    flat = torch.zeros(B, H, T, D)
    eye = torch.eye(T, D).expand(B, G, T, D)
    rows = operators.attention(flat, flat[:, :G], eye, dropout=0.3)
    mask = (rows * torch.arange(1, T + 1)[:, None])[..., :T]
    seen = torch.ones(T, T).tril().bool()
    values = mask[..., seen]
    assert (
        torch.isclose(values, torch.tensor(0.0))
        .logical_or(torch.isclose(values, torch.tensor(1 / 0.7), rtol=1e-5))
        .all()
    )
    operators.seed(3)
    found = gradients(operators.attention(q, k, v, dropout=0.3), q, k, v)
    k2, v2 = (x.repeat_interleave(H // G, dim=1) for x in (k, v))
    scores = (q @ k2.mT / math.sqrt(D)).masked_fill(~seen, -math.inf)
    expected = (scores.softmax(-1) * mask) @ v2
    assert_close(found, gradients(expected, q, k, v), 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("shape", [(1, 1, 5), (3, 2, 16), (2, 100, 40)], ids=str)
def test_mixed_tokens_are_a_causal_convolution(
    shape: tuple[int, int, int], dtype: torch.dtype, tolerance: float
) -> None:
    x, weight = draw(*shape, dtype=dtype), draw(4, 1, shape[-1], seed=2)
    wide, T = x.detach().float().requires_grad_(), shape[1]
    kernel = weight.permute(2, 1, 0).flip(2)  # conv1d's last tap is the token itself
    convolved = F.conv1d(wide.mT, kernel, padding=3, groups=shape[-1])[..., :T].mT
    expected = gradients(wide + convolved, wide, weight)
    for operators in (compiled(16), TORCH):
        found = gradients(operators.mix_tokens(x, weight), x, weight)
        assert_close(found, expected, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_gelu_rotation_and_norms_are_torchs(dtype: torch.dtype, tolerance: float) -> None:
    operators = compiled(16)
    x = draw(3, 700, dtype=dtype)
    assert_close(gradients(operators.gelu(x), x), gradients(TORCH.gelu(x), x), tolerance)
    far = torch.tensor([-1e30, -50.0, -5.0, 0.0, 5.0, 50.0, 1e30])
    assert torch.allclose(operators.gelu(far), TORCH.gelu(far), atol=1e-5)
    (q, _, _), angles = qkv(2, 3, 3, 10, 16, dtype=dtype), tuple(torch.randn(2, 1, 10, 8))
    q = (0.05 * q.detach()).requires_grad_()  # small, so that another eps would show
    for normed in (False, True):
        assert_close(
            gradients(operators.rotate(q, angles, normed=normed), q),
            gradients(TORCH.rotate(q, angles, normed=normed), q),
            3 * tolerance,
        )
    y, weight = draw(5, 33, 40), draw(40, seed=2)
    assert_close(
        gradients(operators.rms_norm(y, weight, 1e-5), y, weight),
        gradients(TORCH.rms_norm(y, weight, 1e-5), y, weight),
        2e-6,
    )


def masks(operators: Operators, seed: int, count: int, n: int, rate: float) -> Tensor:
    """Return which elements `count` calls keep: (count, n) of 0 and 1."""
    operators.seed(seed)
    kept = [operators.dropout(torch.ones(n), rate) * (1 - rate) for _ in range(count)]
    return torch.stack(kept).round()


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_masks_are_independent_draws_at_the_given_rate(rate: float) -> None:
    operators, count, n = compiled(16), 8, 200_000
    kept = masks(operators, 1, count, n, rate)
    other = masks(operators, 2, count, n, rate)
    assert set(kept.flatten().tolist()) <= {0.0, 1.0}
    # Each of these means is normal with a known deviation; 5 of them is one in two million.
    deviation = math.sqrt(rate * (1 - rate))
    assert abs((1 - kept).mean().item() - rate) < 5 * deviation / math.sqrt(count * n)
    centred, shifted = (kept - (1 - rate)) / deviation, (other - (1 - rate)) / deviation
    limit = 5 / math.sqrt(n)
    for distance in (1, 2, 16, 64, 1024):  # within a mask
        assert (centred[:, distance:] * centred[:, :-distance]).mean(1).abs().max() < limit * 1.01
    products = centred @ centred.T / n  # between the calls of one step
    assert (products - torch.diag(products.diag())).abs().max() < limit
    assert (centred @ shifted.T / n).abs().max() < limit  # between two seeds
    runs = kept.view(count, -1, 8).sum(2)  # how many of 8 neighbours stay: binomial
    for stay in range(9):
        p = math.comb(8, stay) * (1 - rate) ** stay * rate ** (8 - stay)
        share = (runs == stay).float().mean().item()
        assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / runs.numel()) + 1e-9


def test_a_mask_is_a_function_of_the_seed_and_the_call() -> None:
    operators = compiled(16)
    first = masks(operators, 5, 3, 5000, 0.3)
    assert torch.equal(first, masks(operators, 5, 3, 5000, 0.3))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, masks(operators, 6, 3, 5000, 0.3))


def test_adding_a_dropped_branch_gives_it_the_masks_gradient() -> None:
    operators, x, branch = compiled(16), draw(3, 1500), draw(3, 1500, seed=2, dtype=torch.bfloat16)
    operators.seed(4)
    y = operators.add(x, branch, dropout=0.25)
    operators.seed(4)
    mask = operators.dropout(torch.ones(3, 1500), 0.25)
    assert_close(gradients(y, x, branch), gradients(x + mask * branch, x, branch), 1e-2)
    assert torch.equal(operators.add(x, branch, dropout=0.0), x + branch)


@pytest.fixture(params=["gpt2", "modern"])
def config(request: pytest.FixtureRequest, tiny: Config) -> Config:
    changes = {"dropout": 0.1, "device": "cpu", "architecture": request.param, "max_iters": 12}
    return get_config({**tiny.to_dict(), **changes, "learning_rate": 1e-3})


def weights(config: Config, text: str, threads: int = 1) -> str:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model, dataset = GPT(config), CharDataset(text, config.block_size)
        Trainer(model, config).train(dataset, dataset)
    finally:
        torch.set_num_threads(before)
    return hash_weights(model.state_dict())


def test_training_learns_as_with_torchs_operators(config: Config, text: str) -> None:
    compiled(config.n_embd // config.n_head)
    losses = []
    for changes in ({"compile": True}, {"compile": False}):
        run = get_config({**config.to_dict(), **changes, "dropout": 0.0})
        dataset = CharDataset(text, run.block_size)
        record = Trainer(GPT(run), run).train(dataset, dataset)
        losses.append([row["val_loss"] for row in record.history])
    assert losses[0] == pytest.approx(losses[1], abs=2e-5)


def test_mixed_precision_on_a_cpu_takes_bfloat16_only_with_compiled_operators() -> None:
    cpu, has_it = torch.device("cpu"), torch_private.cpu_has_bf16()
    quick = torch.bfloat16 if has_it else torch.float32
    assert device.precision_dtype("auto", cpu, compiled=True) == quick
    assert device.precision_dtype("auto", cpu, compiled=False) == torch.float32
    assert device.precision_dtype("bf16", cpu, compiled=False) == torch.bfloat16
    with pytest.raises(DeviceError, match="precision: found fp16"):
        device.precision_dtype("fp16", cpu)


def test_training_gives_the_same_bits_each_time(config: Config, text: str) -> None:
    compiled(config.n_embd // config.n_head)
    assert weights(config, text) == weights(config, text)


def test_a_copy_of_a_trained_model_needs_no_library(config: Config, text: str) -> None:
    model, dataset = GPT(config), CharDataset(text, config.block_size)
    Trainer(model, config).train(dataset, dataset)
    idx = dataset[0][0][None]
    other = copy.deepcopy(model)
    attention = other.get_submodule("h.0.attn")
    assert isinstance(attention, Attention)
    assert type(attention.operators) is Operators
    assert torch.allclose(other.eval()(idx), model.eval()(idx), atol=1e-4)


def test_a_trained_model_can_change_its_dtype(config: Config, text: str) -> None:
    model, dataset = GPT(config), CharDataset(text, config.block_size)
    Trainer(model, config).train(dataset, dataset)
    idx = dataset[0][0][None]
    expected = model.eval()(idx)
    assert torch.allclose(model.double()(idx).float(), expected, atol=1e-4)
    model.train()(idx).sum().backward()


def no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: str) -> None:
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    toolchain.load_library.cache_clear()
    monkeypatch.setattr(toolchain, "load_library", toolchain.load_library.__wrapped__)


@pytest.mark.parametrize("compiler", ["false", "no-such-compiler", "true"])
def test_without_a_compiler_training_says_so_and_goes_on(
    compiler: str, config: Config, text: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    no_library(monkeypatch, tmp_path, compiler)
    weights(config, text)
    lines = [line for line in capsys.readouterr().out.splitlines() if "cpu.c" in line]
    assert lines == [
        f"note: kernels/cpu/cpu.c: `{compiler}` does not compile it here: training goes on with"
        " torch's operators, more slowly"
    ]


def test_gradients_reach_the_weights_with_every_operator(text: str, config: Config) -> None:
    model = GPT(config)
    model.use(compiled(config.n_embd // config.n_head))
    dataset = CharDataset(text, config.block_size)
    idx, targets = dataset[0]
    model(idx[None], targets[None])[1].backward()
    missing = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not missing
    assert F.cross_entropy(model(idx[None])[0], targets).isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("softcap", [0.0, 15.0])
@pytest.mark.parametrize("rows", [1, 7, 64], ids=lambda rows: f"{rows} rows at a time")
def test_the_loss_in_parts_is_torchs(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, softcap: float, rows: int
) -> None:
    """With targets that do not count, in a part of their own too; and without gradients."""
    V, drawn = 300, torch.Generator().manual_seed(1)
    monkeypatch.setattr(cpu_operators, "LOGITS", rows * V)
    operators = compile_operators(32)
    x = torch.randn(2, 50, 32, generator=drawn).requires_grad_()
    weight = (torch.randn(V, 32, generator=drawn) / 4).requires_grad_()
    targets = torch.randint(0, V, (2, 50), generator=drawn)
    targets[0, :9] = -1
    found = []
    for own in (operators, Operators()):
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            loss = own.cross_entropy(x, weight, targets, softcap=softcap)
        found.append((loss, *torch.autograd.grad(3 * loss, [x, weight])))
    near = 1e-5 if dtype == torch.float32 else 2e-2
    for mine, right in zip(*found, strict=True):
        assert mine.dtype == right.dtype == torch.float32
        assert (mine - right).abs().max() <= near * right.abs().max()
    with torch.no_grad():
        alone = operators.cross_entropy(x, weight, targets, softcap=softcap)
    exact = found[0][0] if dtype == torch.float32 else alone
    assert torch.equal(alone, exact)
    with pytest.raises(DataError, match="-1, which does not count"):
        operators.cross_entropy(x, weight, targets + V, softcap=softcap)
