"""What of following teachers only a CUDA device can show."""

import pytest
import torch
from crashing import CrashError, train
from several import make_teachers

from nanogpt2.config.config import Config, get_config
from nanogpt2.device import graph
from nanogpt2.kernels.choose import find_operators
from nanogpt2.model.checkpoint import hash_weights
from nanogpt2.train.distil.choose import find_loss
from nanogpt2.train.distil.loss import ChunkedLoss, Lesson, Mixture, SoftLoss

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

PRECISIONS = ["fp32", "bf16", "fp16", "fp8"]


def config_of(tiny: Config, **changes: object) -> Config:
    values = {"device": "cuda", "n_embd": 64, "dropout": 0.2, "max_iters": 24, "eval_interval": 8}
    values |= {"checkpoint_interval": 6, "teachers": ["first", "second"]}
    return get_config(tiny, **{**values, **changes})


def run(config: Config, text: str, *, crash: int | None = None) -> tuple[str, list[str]]:
    """Train, and return the SHA-256 of the weights and what FusedRows it used."""
    trainer, _ = train(config, text, make_teachers(config), crash=crash)
    rows = trainer.stepper.objective.soft_loss.rows  # type: ignore[attr-defined]
    return hash_weights(trainer.model.state_dict()), [type(rows).__name__]


@pytest.mark.parametrize("per_step", [0, 1])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_captured_step_computes_what_an_eager_one_does(
    tiny: Config,
    text: str,
    precision: str,
    per_step: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if precision == "fp8" and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("needs eight bits")
    changes = {"precision": precision, "gradient_accumulation_steps": 2}
    config = config_of(tiny, **changes, teachers_per_step=per_step)
    captured = run(config, text)
    printed = capsys.readouterr()
    assert captured[1] == ["FusedRows"]
    assert "note:" not in printed.out + printed.err
    assert "no CUDA graph" not in printed.out + printed.err
    monkeypatch.setattr(graph, "EAGER_CALLS", 10**9)
    assert run(config, text) == captured


def test_a_resumed_run_has_the_weights_of_an_unbroken_one(tiny: Config, text: str) -> None:
    config = config_of(tiny, optimizer="muon", teacher_temperature=2.0, teachers_per_step=1)
    unbroken = run(config, text)
    for crash in (9, 20):
        with pytest.raises(CrashError):
            run(config, text, crash=crash)
    assert run(config, text) == unbroken


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_large_head_is_computed_in_parts(
    tiny: Config, dtype: torch.dtype, temperature: float
) -> None:
    """Rows of several tiles, in several chunks, and no logits of the whole batch in float32."""
    V, n, N, device = 50_304, 50_257, 4096, torch.device("cuda")
    config = get_config(tiny, device="cuda", vocab_size=V, logit_softcap=15.0).resolved()
    operators = find_operators(config, device, say=print)
    mixture, lines = Mixture(0.7, temperature, n), list[str]()
    loss = find_loss(operators, config, [config], mixture, device, dtype, say=lines.append)
    assert isinstance(loss, ChunkedLoss)
    assert lines == []
    loss.rows.logits_bytes = 2**26
    x = torch.randn(1, N, 32, device=device).to(dtype).requires_grad_()
    head = (0.3 * torch.randn(V, 32, device=device)).requires_grad_()
    targets = torch.randint(n, (1, N), device=device)
    targets[0, -9:] = -1
    lessons = [
        Lesson(
            torch.randn(1, N, C, device=device).to(dtype),
            0.3 * torch.randn(rows, C, device=device),
            cap,
        )
        for C, rows, cap in ((24, V, 0.0), (48, n, 10.0))
    ]
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        found = loss(x, head, targets, lessons, softcap=15.0, mixture=mixture)
    grads = torch.autograd.grad(found, [x, head])
    assert torch.cuda.max_memory_allocated() - before < 4 * N * V / 2
    wide = x.detach().float().requires_grad_()
    lessons = [each._replace(hidden=each.hidden.float()) for each in lessons]
    right = SoftLoss()(wide, head, targets, lessons, softcap=15.0, mixture=mixture)
    tolerance = 3e-5 if dtype == torch.float32 else 8 * torch.finfo(dtype).eps
    assert found.item() == pytest.approx(right.item(), rel=tolerance)
    for mine, expected in zip(grads, torch.autograd.grad(right, [wide, head]), strict=True):
        assert (mine - expected).abs().max() <= tolerance * expected.abs().max()
