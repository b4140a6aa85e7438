"""The loss of a model that follows teachers, and its gradients, are what the formula says."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from every import some
from torch import Tensor

from nanogpt2.base.system.errors import DeviceError
from nanogpt2.config.config import Config, get_config
from nanogpt2.kernels.choose import find_operators
from nanogpt2.train.distil.choose import check_loss, find_loss
from nanogpt2.train.distil.loss import ChunkedLoss, Lesson, Mixture, SoftLoss
from nanogpt2.train.distil.rows import Rows

CPU = torch.device("cpu")
GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # or Triton's interpreter
MIXTURES = [(0.7, 2.0), (0.3, 1.0), (1.0, 0.5), (0.0, 2.0)]


def torchs() -> Rows:
    return Rows(CPU)


def compiled() -> Rows:
    from nanogpt2.train.distil.cpu import compile_rows

    try:
        return compile_rows()
    except DeviceError as error:
        pytest.skip(str(error))


def fused() -> Rows:
    gpu = pytest.importorskip("nanogpt2.kernels.gpu", reason="needs Triton")
    import interpreter  # noqa: F401

    from nanogpt2.train.distil.gpu import FusedRows

    return FusedRows(gpu.FusedOperators(GPU))


ROWS = [torchs, compiled, fused]
SIZES = [(300, 257), (16, 16), (19, 3), (1, 1)]  # of a head, and of those that teachers know


def draw(device: torch.device, *shape: int, seed: int, scale: float = 1.0) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale
    return drawn.to(device).requires_grad_()


def batch(
    device: torch.device, *, V: int = 70, n: int = 65, rows: int = 150
) -> tuple[Tensor, Tensor, Tensor, list[Lesson]]:
    """Return x (2, T, 24), a head, targets, and two teachers of other widths, heads and caps."""
    x, head = draw(device, 2, rows // 2, 24, seed=1), draw(device, V, 24, seed=2)
    targets = torch.randint(n, (2, rows // 2), generator=torch.Generator().manual_seed(3))
    targets[0, :5], targets[1, -1], targets[1, 3] = -1, -1, n - 1
    first = draw(device, 2, rows // 2, 16, seed=4), draw(device, n + 7, 16, seed=5, scale=0.5)
    second = draw(device, 2, rows // 2, 40, seed=6), draw(device, n, 40, seed=7, scale=0.3)
    lessons = [(*first, 0.0), (*second, 3.0)]
    return x, head, targets.to(device), [Lesson(h.detach(), w.detach(), c) for h, w, c in lessons]


def by_the_formula(
    x: Tensor, head: Tensor, targets: Tensor, lessons: Sequence[Lesson], cap: float, mix: Mixture
) -> Tensor:
    """Return the loss of float64 tensors, row by row as a text book has it."""
    w, t, n = mix

    def logits(hidden: Tensor, matrix: Tensor, cap: float) -> Tensor:
        z = hidden.flatten(0, 1) @ matrix.T
        return cap * torch.tanh(z / cap) if cap else z

    z = logits(x, head, cap)
    shares = [torch.softmax(logits(own.hidden, own.head, own.softcap)[:, :n] / t, 1)
              for own in lessons]  # fmt: skip
    p = torch.stack(shares).mean(0)
    q, q_t = torch.softmax(z, 1), torch.softmax(z / t, 1)
    rows = [
        (1 - w) * -q[i, target].log() - w * t**2 * (p[i] * q_t[i, :n].log()).sum()
        for i, target in enumerate(targets.flatten().tolist())
        if target >= 0
    ]
    return torch.stack(rows).mean()


def double(lesson: Lesson) -> Lesson:
    return Lesson(lesson.hidden.double(), lesson.head.double(), lesson.softcap)


@pytest.mark.parametrize(
    ("make", "cap", "mix"),
    some(
        product([None, *ROWS], [0.0, 5.0], MIXTURES),
        *product([None, torchs, compiled], [0.0, 5.0], MIXTURES),
        *product([fused], [5.0], MIXTURES[1:3]),
    ),
)
def test_the_loss_and_its_gradients_are_those_of_the_formula(
    make: Callable[[], Rows] | None, cap: float, mix: tuple[float, float]
) -> None:
    small = make is fused and GPU == CPU  # the interpreter takes long
    x, head, targets, lessons = batch(GPU if make is fused else CPU, rows=20 if small else 150)
    mixture = Mixture(*mix, 65)
    wide = [each.detach().double().requires_grad_() for each in (x, head)]
    right = by_the_formula(wide[0], wide[1], targets, list(map(double, lessons)), cap, mixture)
    loss: SoftLoss = SoftLoss()
    if make is not None:
        rows = make()
        rows.logits_bytes = 128 * 70 * 8  # so that there is a second chunk, of fewer rows
        loss = ChunkedLoss(rows)
    found = loss(x, head, targets, lessons, softcap=cap, mixture=mixture)
    assert found.item() == pytest.approx(right.item(), rel=1e-6)
    pairs = zip(
        torch.autograd.grad(3 * found, [x, head]),
        torch.autograd.grad(3 * right, wide),
        strict=True,
    )
    for mine, expected in pairs:
        assert (mine - expected).abs().max() <= 3e-6 * expected.abs().max()


@pytest.mark.parametrize(
    ("make", "V", "n"),
    [
        (make, V, n)
        for make in ROWS
        for V, n in some(SIZES, *(SIZES[::2] if make is fused else SIZES))
    ],
)
def test_heads_of_any_size_are_computed(make: Callable[[], Rows], V: int, n: int) -> None:
    x, head, targets, lessons = batch(GPU if make is fused else CPU, V=V, n=n, rows=14)
    given: dict[str, Any] = {"softcap": 2.0, "mixture": Mixture(0.6, 1.5, n)}
    found, right = (
        [y, *torch.autograd.grad(y, [x, head])]
        for loss in (ChunkedLoss(make()), SoftLoss())
        for y in [loss(x, head, targets, lessons, **given)]
    )
    for mine, expected in zip(found, right, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", ROWS)
def test_without_a_weight_it_is_the_usual_loss(make: Callable[[], Rows]) -> None:
    x, head, targets, lessons = batch(GPU if make is fused else CPU, rows=30)
    loss = ChunkedLoss(make())
    found = loss(x, head, targets, lessons, softcap=0.0, mixture=Mixture(0.0, 1.0, 65))
    usual = F.cross_entropy((x @ head.T).flatten(0, 1), targets.flatten(), ignore_index=-1)
    assert found.item() == pytest.approx(usual.item(), rel=1e-6)


def test_threads_change_no_bit() -> None:
    x, head, targets, _ = batch(CPU, rows=400)
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        rows = compiled()
        total = torch.empty(400, 65)
        logits = x.detach().flatten(0, 1) @ head.detach().T
        rows.add_probabilities(total, logits.clone(), 3.0, 2.0, share=1.0, add=False)
        losses = torch.empty(400)
        rows.replace_by_gradient(logits, total, targets.flatten(), losses, 70, 3.0, 0.7, 2.0)
        found.append((total, logits, losses))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def found_loss(config: Config, lines: list[str]) -> SoftLoss:
    config = config.resolved()
    operators = find_operators(config, CPU, say=lines.append)
    teachers = [config, get_config(config, n_embd=40, n_head=2, logit_softcap=3.0)]
    mixture = Mixture(0.7, 2.0, config.vocab_size - 3)
    return find_loss(operators, config, teachers, mixture, CPU, torch.bfloat16, say=lines.append)


@pytest.mark.parametrize("vocab_size", [64, 50304])
def test_compiled_rows_pass_the_check_of_a_run(tiny: Config, vocab_size: int) -> None:
    compiled()
    lines: list[str] = []
    loss = found_loss(get_config(tiny, vocab_size=vocab_size), lines)
    assert isinstance(loss, ChunkedLoss)
    assert type(loss.rows).__name__ == "CompiledRows"
    assert lines == []


@pytest.mark.parametrize("name", ["add_probabilities", "replace_by_gradient"])
@pytest.mark.parametrize("make", [compiled, fused])
def test_rows_wrong_in_one_element_are_found(
    tiny: Config, make: Callable[[], Rows], name: str
) -> None:
    rows = make()
    right = getattr(rows, name)
    device = GPU if make is fused else CPU
    given = tiny, [tiny], Mixture(0.7, 2.0, 61), device, torch.float32
    assert check_loss(ChunkedLoss(rows), *given) is None

    def wrong(first: Tensor, *args: Any, **options: Any) -> None:
        right(first, *args, **options)
        first[len(first) // 2, 5] += 0.1 * first.abs().max()

    setattr(rows, name, wrong)
    fault = check_loss(ChunkedLoss(rows), *given)
    assert fault is not None
    assert fault.startswith("computes something else here than torch (largest difference ")


def test_what_cannot_be_compiled_is_said_and_torch_serves(
    tiny: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled()
    tiny = tiny.resolved()
    operators = find_operators(tiny, CPU, say=lambda _: None)
    monkeypatch.setenv("CC", "no-such-compiler")
    from nanogpt2.device import compiler

    compiler.load_library.cache_clear()
    lines: list[str] = []
    loss = find_loss(
        operators, tiny, [tiny], Mixture(0.7, 1.0, 60), CPU, torch.float32, say=lines.append
    )
    assert isinstance(loss, ChunkedLoss)
    assert type(loss.rows) is Rows
    assert lines == [
        "note: loss that follows teachers: train/distil/cpu.c: `no-such-compiler` does not compile"
        " it here: torch's serves in its place"
    ]
