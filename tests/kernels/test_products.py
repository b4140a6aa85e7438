"""Products through cuBLASLt, on an imitation of it: what is asked of it, and what is not."""

import gc

import pytest
import torch
from imitation import Imitation, Product
from torch import Tensor

from nanogpt2.base.system.errors import DeviceError
from nanogpt2.config.config import Config, get_config
from nanogpt2.device import cublaslt
from nanogpt2.kernels.checks.check import use_torchs
from nanogpt2.kernels.cublaslt import Products
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.step import Stepper

CPU, NARROW = torch.device("cpu"), torch.bfloat16
# By what is said of it: its epilogue, whether it adds to its output, and which sides cuBLASLt
# sees transposed, in its order.
KINDS = {
    "product": Product(1, False, (True, False)),
    "product with a bias": Product(4, False, (True, False)),
    "gradient": Product(1, False, (False, False)),
    "gradient, added": Product(1, True, (False, False)),
    "gradient of a weight": Product(1, False, (False, True)),
    "gradient of a weight, added": Product(1, True, (False, True)),
    "product with GELU": Product(160, False, (True, False)),
    "product with a bias and GELU": Product(164, False, (True, False)),
    "gradient of GELU": Product(192, False, (False, False)),
}


@pytest.fixture(autouse=True)
def _host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cublaslt, "ALIGNMENT", 64)  # as torch aligns what is on the host


def vetted(library: Imitation, dtype: torch.dtype = NARROW) -> tuple[Products, list[str]]:
    products, lines = Products(CPU, library), list[str]()
    products.vet(dtype, say=lines.append)
    library.done.clear()
    return products, lines


def draw(*shape: int, seed: int = 1, dtype: torch.dtype = NARROW) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    scale: float = shape[-1] ** 0.25
    return (drawn / scale).to(dtype)


def layer_products(products: Products, dtype: torch.dtype = NARROW) -> list[Tensor]:
    """Return all that a layer and a GELU compute, forward and backward."""
    x, weight, bias = draw(48, 32, dtype=dtype), draw(64, 32, seed=2, dtype=dtype), draw(64)
    dy, bias = draw(48, 64, seed=3, dtype=dtype), bias.to(dtype)
    return [
        products.multiply(x, weight.t()),
        products.multiply(x, weight.t(), bias=bias),
        products.multiply(dy, weight),
        products.multiply(dy, weight, out=x.clone(), add=True),
        products.multiply(dy.t(), x, dtype=torch.float32),
        products.multiply(dy.t(), x, out=weight.float().clone(), add=True),
        *products.gelu(x, weight.t(), None),
        *products.gelu(x, weight.t(), bias),
        products.gelu_gradient(dy, weight, x),
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_products_are_torchs(dtype: torch.dtype) -> None:
    library = Imitation()
    products, lines = vetted(library, dtype)
    assert lines == []
    found = layer_products(products, dtype)
    assert set(library.done) == set(KINDS.values())
    for mine, right in zip(found, layer_products(Products(CPU), torch.float32), strict=True):
        assert (mine - right).abs().max() <= 8 * torch.finfo(dtype).eps * right.abs().max()


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_that_is_wrong_in_one_element_is_refused_and_torch_multiplies(name: str) -> None:
    library = Imitation(wrong=lambda product: product == KINDS[name])
    products, lines = vetted(library)
    assert len(lines) == 1
    assert lines[0].startswith(f"note: cuBLASLt's {name}: computes something else here than torch")
    layer_products(products)
    assert set(library.done) == set(KINDS.values()) - {KINDS[name]}


def test_nothing_runs_that_was_not_compared() -> None:
    library = Imitation()
    products = Products(CPU, library)
    layer_products(products)
    products.vet(torch.float16, say=print)
    library.done.clear()
    layer_products(products)
    products.multiply(draw(32, 48).t(), draw(64, 32).t())  # both transposed
    products.multiply(draw(48, 32).float(), draw(32, 64).float())
    assert library.done == []


def test_a_shape_has_one_plan_the_first_proposal() -> None:
    library = Imitation()
    products, _ = vetted(library)
    library.asked.clear()
    results = [products.multiply(draw(48, 32), draw(64, 32).t()) for _ in range(3)]
    assert library.asked == [1]
    assert torch.equal(results[0], results[1])
    assert len(library.done) == 3


def test_what_cublaslt_has_no_algorithm_for_torch_multiplies() -> None:
    library = Imitation()
    products, _ = vetted(library)
    x, weight = draw(10_000, 8), draw(16, 8)
    assert torch.equal(products.multiply(x, weight.t()), torch.mm(x, weight.t()))
    assert products.multiply(x[:, :4], weight[:, :4].t()).shape == (10_000, 16)  # no multiple of 8
    assert library.done == []


def test_what_is_made_is_freed() -> None:
    library = Imitation()
    products, _ = vetted(library)
    layer_products(products)
    assert library.made["MatmulDesc"] > len(KINDS)
    assert not library.destroyed
    gc.disable()  # nothing waits for it
    try:
        del products
        assert library.destroyed == library.made
    finally:
        gc.enable()
    assert not library.objects


def test_what_was_made_before_a_failure_is_freed() -> None:
    library = Imitation()
    products, _ = vetted(library)
    library.failing = "MatrixLayout"
    with pytest.raises(RuntimeError, match="cuBLASLt failed with status 3"):
        products.multiply(draw(48, 32), draw(64, 32).t())
    del products
    gc.collect()
    assert library.destroyed == library.made


@pytest.mark.parametrize("version", [110_902, 11_605, 140_000])
def test_versions_whose_numbers_may_differ_are_refused(version: int) -> None:
    with pytest.raises(DeviceError, match=f"cuBLASLt: found version {version}; known are 12 and"):
        cublaslt.check_version(Imitation(version=version))


@pytest.mark.parametrize("version", [120_000, 120_804, 130_101])
def test_known_versions_are_taken(version: int) -> None:
    cublaslt.check_version(Imitation(version=version))


def test_without_cuda_there_is_no_library() -> None:
    if torch.version.cuda:
        pytest.skip("torch is built for CUDA")
    with pytest.raises(DeviceError, match="is not there"):
        cublaslt.load_library()


def test_a_run_with_a_refused_product_is_one_in_which_torch_multiplies(
    tiny: Config, text: str
) -> None:
    gpu = pytest.importorskip("nanogpt2.kernels.gpu", reason="needs Triton")
    config = get_config({**tiny.to_dict(), "dropout": 0.0, "precision": "bf16"})
    runs = []
    kind = KINDS["product with a bias and GELU"]
    for library in (Imitation(wrong=lambda product: product == kind), Imitation()):
        products, _ = vetted(library)
        products.vetted = {each for each in products.vetted if each.epilogue != kind.epilogue}
        operators = gpu.FusedOperators(CPU, products)
        for slow_in_the_interpreter in ("embed", "add_norm", "cross_entropy"):
            use_torchs(operators, slow_in_the_interpreter)
        model, dataset = GPT(config), CharDataset(text, config.block_size)
        stepper = Stepper(model, config)
        stepper.operators = operators
        model.use(operators)
        runs.append([stepper.step(dataset, step).figures[0].item() for step in range(3)])
        assert KINDS["product with a bias"] in library.done
        assert kind not in library.done
    assert runs[0] == runs[1]
