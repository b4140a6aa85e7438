"""Each operator is compared with torch's before a run, and refused by name where it is wrong."""

import os
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from every import some
from spoiled import spoil_operator
from torch import Tensor

from nanogpt2.base.system.errors import DeviceError
from nanogpt2.config.config import Config, get_config
from nanogpt2.device import compiler as toolchain
from nanogpt2.kernels.checks.check import check_operators, use_torchs
from nanogpt2.kernels.checks.trials import TRIALS
from nanogpt2.kernels.choose import find_operators
from nanogpt2.kernels.cpu.operators import CompiledOperators, compile_operators
from nanogpt2.model.gpt import GPT
from nanogpt2.model.operators import Operators
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.step import Stepper

CPU = torch.device("cpu")
GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # or Triton's interpreter
MODERN = ("rotate", "rms_norm")  # which the architecture gpt2 has not


def config_of(tiny: Config, name: str, **changes: object) -> Config:
    architecture = "modern" if name in MODERN else "gpt2"
    parts = {"architecture": architecture, "mlp_conv": 4 if name == "mix_tokens" else 0}
    changes = {**parts, "dropout": 0.1, "zero_init": False, **changes}
    return get_config({**tiny.to_dict(), **changes})


def compiled(config: Config) -> CompiledOperators:
    try:
        return compile_operators(config.n_embd // config.n_head)
    except DeviceError as error:
        pytest.skip(str(error))


def fused(_: Config) -> Operators:
    gpu = pytest.importorskip("nanogpt2.kernels.gpu", reason="needs Triton")
    import interpreter  # noqa: F401

    made: Operators = gpu.FusedOperators(GPU, in_parts=True)
    return made


def check(
    operators: Operators, config: Config, dtype: torch.dtype = torch.float32
) -> tuple[set[str], list[str]]:
    lines: list[str] = []
    device = CPU if isinstance(operators, CompiledOperators) else GPU
    return check_operators(operators, config, device, dtype, say=lines.append), lines


def losses(operators: Operators, config: Config, text: str, steps: int = 3) -> list[float]:
    """Return the losses of a few steps with `operators`."""
    model, dataset = GPT(config), CharDataset(text, config.block_size)
    stepper = Stepper(model, config, say=lambda _: None)
    stepper.operators = operators
    model.use(operators)
    return [stepper.step(dataset, step).figures[0].item() for step in range(steps)]


@pytest.mark.parametrize("gradient", [False, True], ids=["result", "gradient"])
@pytest.mark.parametrize("name", TRIALS)
def test_an_operator_wrong_in_one_element_is_refused_and_torchs_serves(
    tiny: Config, text: str, name: str, gradient: bool
) -> None:
    config = config_of(tiny, name)
    operators, right = compiled(config), compiled(config)
    spoil_operator(operators, name, gradient=gradient)
    refused, lines = check(operators, config)
    assert refused == {name}
    assert len(lines) == 1
    assert lines[0].startswith(f"note: {name}: computes something else here than torch (largest ")
    assert lines[0].endswith("): torch's serves in its place")
    use_torchs(right, name)
    assert losses(operators, config, text, 2) == losses(right, config, text, 2)


@pytest.mark.parametrize("gradient", [False, True], ids=["result", "gradient"])
@pytest.mark.parametrize(
    "name",
    ["embed", "linear", "split_linear", "rotate", "gelu_mlp", "add_norm", "cross_entropy"],
)
def test_a_kernel_of_a_gpu_wrong_in_one_element_is_refused_and_torchs_serves(
    tiny: Config, text: str, name: str, gradient: bool
) -> None:
    small: dict[str, object] = {"n_layer": 1, "block_size": 8, "batch_size": 2}
    small |= {"logit_softcap": 5.0, "device": GPU.type, "mixed_precision": False}
    config = config_of(tiny, name, **small)
    operators = fused(config)
    spoil_operator(operators, name, gradient=gradient)
    for other in TRIALS.keys() - {name}:  # in the interpreter they take long
        use_torchs(operators, other)
    refused, lines = check(operators, config)
    assert refused == {name}
    assert len(lines) == 1
    assert lines[0].startswith(f"note: {name}: computes something else here than torch (largest ")
    assert losses(operators, config, text, 1) == losses(Operators(), config, text, 1)


KINDS: list[dict[str, object]] = [
    {},
    {"architecture": "modern", "n_kv_head": 1, "mlp_conv": 8},
    {"dropout": 0.0},
]


@pytest.mark.parametrize(
    ("make", "changes"),
    some(product([compiled, fused], KINDS), *product([compiled], KINDS), (fused, KINDS[1])),
)
def test_what_is_right_is_kept_and_nothing_is_said(
    tiny: Config, make: Callable[[Config], Operators], changes: dict[str, object]
) -> None:
    config = config_of(tiny, "embed", n_layer=1, **changes)
    dtype = torch.bfloat16 if make is compiled else torch.float32
    assert check(make(config), config, dtype) == (set(), [])


@pytest.mark.parametrize("preset", ["nano", "small", "base"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_widths_of_the_presets_are_within_the_tolerances(
    preset: str, dtype: torch.dtype
) -> None:
    config = get_config(preset, mlp_conv=4)
    assert check(compiled(config), config, dtype) == (set(), [])


def with_gelu(tiny: Config, gelu: Callable[[Tensor], Tensor]) -> tuple[Config, Operators]:
    config = config_of(tiny, "gelu")
    operators = compiled(config)
    operators.gelu = gelu  # type: ignore[method-assign, assignment]
    return config, operators


def test_a_number_that_is_none_is_refused(tiny: Config) -> None:
    config, operators = with_gelu(tiny, lambda x: torch.where(x == x.max(), torch.nan, x))
    assert check(operators, config)[1] == [
        "note: gelu: computes something else here than torch (largest difference nan): torch's"
        " serves in its place"
    ]


def test_what_cannot_be_compiled_is_refused_with_its_reason(tiny: Config) -> None:
    def gelu(_: Tensor) -> Tensor:
        raise OSError("ptxas: no such file\nand much more")

    config, operators = with_gelu(tiny, gelu)
    assert check(operators, config)[1] == [
        "note: gelu: does not work here (OSError: ptxas: no such file): torch's serves in its place"
    ]


class Constant(torch.autograd.Function):
    """Dropout whose mask is the same for every seed."""

    @staticmethod
    def forward(ctx: object, x: Tensor, rate: float) -> Tensor:
        torch.manual_seed(0)
        return torch.nn.functional.dropout(x, rate)


@pytest.mark.parametrize(
    ("dropout", "said"),
    [
        (lambda x, rate: Constant.apply(x, rate), "two seeds have one mask"),  # type: ignore[no-untyped-call]
        (
            lambda x, rate: torch.nn.functional.dropout(x, 2 * rate),
            "dropout 0.1 drops a share of 0.2",
        ),
        (lambda x, rate: x * (torch.rand_like(x) > rate), "computes something else"),
    ],
    ids=["one mask", "another rate", "not scaled"],
)
def test_dropout_is_refused_where_its_masks_are_none(
    tiny: Config, dropout: Callable[[Tensor, float], Tensor], said: str
) -> None:
    config = config_of(tiny, "dropout")
    operators = compiled(config)
    operators.dropout = dropout  # type: ignore[method-assign, assignment]
    refused, lines = check(operators, config)
    assert refused == {"dropout"}
    assert said in lines[0]


def test_the_check_leaves_torchs_generator_alone(tiny: Config) -> None:
    config = config_of(tiny, "embed")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check(compiled(config), config)
    assert torch.equal(torch.rand(3), expected)


def test_a_library_compiled_wrong_serves_where_it_is_right(
    tiny: Config, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler whose square roots are cubic ones: attention and norms need them."""
    config = config_of(tiny, "rotate")
    compiled(config)
    compiler = os.environ.get("CC") or "cc"
    monkeypatch.setenv("CC", f"{compiler} -Dsqrtf=cbrtf")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(toolchain, "load_library", toolchain.load_library.__wrapped__)
    lines: list[str] = []
    operators = find_operators(config.resolved(), CPU, say=lines.append)
    assert [line.split(":")[1] for line in lines] == [" attention", " rotate", " rms_norm"]
    assert isinstance(operators, CompiledOperators)
    assert losses(operators, config, text)[-1] < 5
