"""What only a CUDA device can show."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from crashing import CrashError, train
from imports import ROOT
from several import CASES, CHOSEN, case_config, losses, sharded_bits
from torch import Tensor
from variants import warmed

from nanogpt2.config.config import Config, get_config
from nanogpt2.decode.decoder import ModuleDecoder
from nanogpt2.decode.draw import Controls
from nanogpt2.decode.kernels.choose import prepare
from nanogpt2.device import graph
from nanogpt2.device.cublaslt import load_library
from nanogpt2.kernels.choose import find_operators
from nanogpt2.kernels.cublaslt import Products
from nanogpt2.model.checkpoint import hash_weights
from nanogpt2.model.gpt import GPT
from nanogpt2.sample.generate import generate_tokens
from nanogpt2.sample.request import Request
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SETTINGS: list[dict[str, object]] = [
    {},
    {"architecture": "modern", "optimizer": "muon", "ema_decay": 0.99},
    {"architecture": "qwen3", "optimizer": "normuon"},
]


@pytest.fixture(params=SETTINGS, ids=["gpt2", "modern", "qwen3"])
def config(request: pytest.FixtureRequest, tiny: Config) -> Config:
    changes = {
        "device": "cuda",
        "n_embd": 64,
        "dropout": 0.2,
        "mixed_precision": True,
        "max_iters": 40,
        "eval_interval": 10,
        "checkpoint_interval": 6,
    }
    return get_config({**tiny.to_dict(), **changes, **request.param})


def run(config: Config, text: str, *, crash: int | None = None) -> str:
    """Train and return the SHA-256 of the weights; end before step `crash`."""
    trainer, _ = train(config, text, crash=crash)
    return hash_weights(trainer.model.state_dict())


def test_a_resumed_run_has_the_weights_of_an_unbroken_one(config: Config, text: str) -> None:
    unbroken = run(config, text)
    for crash in (9, 20, 37):
        with pytest.raises(CrashError):
            run(config, text, crash=crash)
    assert run(config, text) == unbroken


def test_memory_that_runs_out_in_an_evaluation_changes_the_steps_that_follow(
    config: Config, text: str
) -> None:
    """Captured before it, they would go on with the micro-batch that a resumed run has not."""

    def run_short(crash: int | None = None) -> str:
        model = GPT(config)

        trained = False

        def refuse(module: torch.nn.Module, args: tuple[Tensor, ...]) -> None:
            nonlocal trained
            trained |= module.training
            if trained and not module.training and len(args[0]) > config.batch_size // 2:
                raise torch.OutOfMemoryError("CUDA out of memory")

        model.h[0].register_forward_pre_hook(refuse)
        trainer, _ = train(config, text, crash=crash, model=model)
        assert trainer.stepper.micro_batch.size == config.batch_size // 2
        return hash_weights(trainer.model.state_dict())

    unbroken = run_short()
    with pytest.raises(CrashError):
        run_short(crash=20)
    assert run_short() == unbroken


def test_a_captured_step_computes_what_an_eager_one_does(
    config: Config,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    captured = run(config, text)
    printed = capsys.readouterr()
    assert "no CUDA graph" not in printed.out + printed.err
    monkeypatch.setattr(graph, "EAGER_CALLS", 10**9)
    assert run(config, text) == captured


def test_captured_shards_compute_what_eager_ones_do_and_go_on_to_the_bit(
    config: Config,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = get_config(config, shards=2)
    captured = run(config, text)
    printed = capsys.readouterr()
    assert "no CUDA graph" not in printed.out + printed.err
    with pytest.raises(CrashError):
        run(config, text, crash=20)
    assert run(config, text) == captured
    monkeypatch.setattr(graph, "EAGER_CALLS", 10**9)
    assert run(config, text) == captured


def test_garbage_that_holds_a_graph_does_not_end_a_capture() -> None:
    x, said, thresholds = torch.ones(4, device="cuda"), list[str](), gc.get_threshold()
    old: list[object] = [torch.cuda.CUDAGraph()]
    with torch.cuda.graph(old[0]):  # type: ignore[arg-type]
        x.exp()
    old.append(old)
    del old

    def multiply(y: Tensor) -> Tensor:
        made = [[n] for n in range(1000)]  # so many that the collector looks
        return y * len(made)

    gc.disable()
    captured = graph.CapturedFunction(multiply, said.append)
    try:
        for _ in range(graph.EAGER_CALLS):
            captured(torch.ones(4))
        gc.set_threshold(1)
        gc.enable()
        assert captured(torch.ones(4)).tolist() == [1000.0] * 4
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
    assert (said, captured.graph is None) == ([], False)


def test_the_report_is_the_gpus(config: Config, text: str) -> None:
    data = CharDataset(text, config.block_size)
    Trainer(GPT(config), config, log_file=Path("train.log")).train(data, data)
    report = json.loads(Path("train.json").read_text(encoding="utf-8"))
    assert report["device"] == torch.cuda.get_device_name()
    assert report["precision"] in ("bfloat16", "float16")
    assert 0 < report["peak_memory"] < torch.cuda.mem_get_info()[1]
    assert report["joules"] is None or report["joules"] >= 0
    utilisation = report["model_flop_utilisation"]
    assert utilisation is None or 0 < utilisation < 1


def test_a_model_trained_on_a_gpu_goes_on_on_a_cpu(config: Config, text: str) -> None:
    data = CharDataset(text, config.block_size)
    model = GPT(config)
    Trainer(model, config).train(data, data)
    model.eval()
    idx = torch.from_numpy(data.tokens[:8].astype("int64"))[None]
    there = model(idx.cuda()).cpu()
    assert torch.allclose(model.cpu()(idx), there, atol=0.1)


# --- Products ---


def draw(rows: int, columns: int, dtype: torch.dtype, *, transposed: bool = False) -> Tensor:
    drawn = torch.randn(columns, rows) if transposed else torch.randn(rows, columns)
    drawn = drawn.to("cuda", dtype)
    return drawn.t() if transposed else drawn


def assert_near(found: Tensor, expected: Tensor) -> None:
    error = 4 * torch.finfo(found.dtype).eps if found.dtype != torch.float32 else 1e-5
    assert (found.double() - expected).abs().max() <= error * expected.abs().max()


def vetted(dtype: torch.dtype) -> Products:
    lines: list[str] = []
    products = Products(torch.device("cuda"), load_library())
    products.vet(dtype, say=lines.append)
    assert lines == []
    products.plans.clear()
    return products


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sizes", [(640, 384, 1152), (50, 17, 65)], ids=["even", "odd"])
def test_products_are_torchs(dtype: torch.dtype, sizes: tuple[int, int, int]) -> None:
    products = vetted(dtype)
    M, K, N = sizes
    for sides in ((False, False), (False, True), (True, False), (True, True)):
        a = draw(M, K, dtype, transposed=sides[0])
        b = draw(K, N, dtype, transposed=sides[1])
        exact, bias = a.double() @ b.double(), draw(1, N, dtype)[0]
        assert_near(products.multiply(a, b), exact)
        assert_near(products.multiply(a, b, bias=bias), exact + bias.double())
        total = products.multiply(a, b, dtype=torch.float32)
        assert_near(total, exact)
        assert products.multiply(a, b, out=total, add=True) is total
        assert_near(total, 2 * exact)
        half = torch.empty(2 * M, N, dtype=dtype, device="cuda")[:M]
        assert_near(products.multiply(a, b, out=half), exact)
        b = b / K**0.5
        exact = a.double() @ b.double()
        for shift in (None, bias):
            argument = exact if shift is None else exact + shift.double()
            active, found = products.gelu(a, b, shift)
            assert_near(found, argument)
            assert_near(active, F.gelu(argument, approximate="tanh"))
        x = draw(M, N, dtype)
        derivative = torch.ops.aten.gelu_backward(exact, x.double(), approximate="tanh")
        assert_near(products.gelu_gradient(a, b, x), derivative)
    assert bool(products.plans) == (M % 8 == 0)
    assert all(plan.algorithm for plan in products.plans.values())


def test_a_captured_product_is_the_plain_one_also_where_its_plan_is_made_then() -> None:
    products, others = vetted(torch.bfloat16), vetted(torch.bfloat16)
    a, b = draw(4096, 384, torch.bfloat16), draw(384, 1152, torch.bfloat16, transposed=True)
    expected = others.multiply(a, b)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        captured = products.multiply(a, b)
    graph.replay()
    assert len(products.plans) == 1
    assert torch.equal(captured, expected)


def test_without_cublaslt_torch_multiplies() -> None:
    products = Products(torch.device("cuda"))
    a, b = draw(64, 32, torch.bfloat16), draw(32, 16, torch.bfloat16)
    exact = a.double() @ b.double()
    assert_near(products.multiply(a, b), exact)
    assert_near(products.multiply(a, b, dtype=torch.float32), exact)
    assert not products.plans


# --- Operators ---


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_all_operators_are_torchs_here(config: Config, precision: str) -> None:
    lines: list[str] = []
    changes = {"precision": precision, "batch_size": 128, "block_size": 48}
    config = get_config({**config.to_dict(), **changes}).resolved()
    find_operators(config, torch.device("cuda"), say=lines.append)
    assert lines == []


# --- Decoding ---


@pytest.mark.parametrize("changes", [{}, SETTINGS[1] | {"n_kv_head": 1}], ids=["gpt2", "modern"])
def test_decoding_in_float32_draws_the_tokens_that_the_model_draws(
    changes: dict[str, object], tiny: Config
) -> None:
    model = warmed(get_config({**tiny.to_dict(), "n_embd": 64, **changes})).cuda().eval()
    prompts = [[1, 2, 3], [4], [5] * 9]
    for count in (1, 3):
        texts = [
            torch.cat(list(generate_tokens(model, request)), dim=1)
            for request in (
                Request(prompts[:count], range(count), 7, controls, use_cache=use_cache)
                for controls in (Controls(temperature=0), Controls(temperature=0.8))
                for use_cache in (True, False)
            )
        ]
        assert torch.equal(texts[0], texts[1])
        assert torch.equal(texts[2], texts[3])


@pytest.mark.parametrize("rows", [1, 3])
def test_later_requests_draw_by_the_graphs_of_the_first_one(rows: int, tiny: Config) -> None:
    model = warmed(get_config({**tiny.to_dict(), "n_embd": 64})).cuda().eval()
    make = prepare(model)
    for prompt in ([1], [2], [3, 4], [1]):
        request = Request([prompt] * rows, range(rows), 30, chunk=8)
        expected = torch.cat(list(generate_tokens(model, request)), dim=1)
        found = torch.cat(list(generate_tokens(model, request, make)), dim=1)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("rows", [1, 5, 32, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_with_kernels_is_as_close_to_the_modules_as_its_digits(
    dtype: torch.dtype, rows: int, tiny: Config
) -> None:
    from nanogpt2.decode.kernels.gpu import FusedDecoder

    model = warmed(get_config({**tiny.to_dict(), "n_embd": 80, "vocab_size": 500}))
    model = model.to("cuda", dtype).eval()
    tokens = torch.randint(500, (4, rows), device="cuda")
    positions = torch.arange(4, device="cuda")[:, None].expand(4, rows)
    with torch.inference_mode():
        logits, expected = (
            [decoder.step(*step) for step in zip(tokens, positions, strict=True)]
            for decoder in (
                make(model, rows=rows, n_tokens=300) for make in (FusedDecoder, ModuleDecoder)
            )
        )
    tolerance = 8 * torch.finfo(dtype).eps
    for mine, right in zip(logits, expected, strict=True):
        assert (mine - right).abs().max() <= max(tolerance, 1e-5) * right.abs().max()


# --- Two devices ---

TWO = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")


@TWO
def test_two_devices_train_as_one_does_and_agree_when_things_go_wrong(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/several.py"), "2", "cuda"],
        cwd=tmp_path,
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path])}
        | {"TRITON_CACHE_DIR": str(tmp_path / "cache")},  # each process compiles its kernels
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("process 1 alone has this to say\n") == 1, done.stderr
    assert "no CUDA graph" not in done.stdout
    assert "does not work here" not in done.stdout
    main, other = (json.loads((tmp_path / f"{rank}.json").read_bytes()) for rank in (0, 1))
    assert main | {"saved": []} == other
    assert main["shards"] == sharded_bits("cuda")
    for name in CHOSEN:
        alone = losses(case_config(CASES[name], "cuda"))
        for step, (row, expected) in enumerate(zip(main[name], alone, strict=True)):
            assert row[0] == pytest.approx(expected[0], rel=1e-4), (name, step)
    assert "loss nan" in main["not finite"]
    assert "this run is under way" in main["refused"]
    assert main["patience"] < 20
    assert main["agreed"][1] == "Rows"
    for kind in ("resumed", "resumed, fsdp"):
        assert main[kind][0] == main[kind][1], kind
