"""The least time in which a device could do a training step's arithmetic and move its weights.

A product timed alone may be slower than within a step, where launches and caches cost less, so the
floor takes from such timings only the best rate of all: no step can do all its work above that.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nanogpt2.config.config import Config
from nanogpt2.model.gpt import GPT

SQUARE = {"cpu": 1024, "cuda": 8192}  # rows of a product large enough for the highest rate
BLOCKS = [2**n for n in range(20, 29, 2)]  # bytes: from what caches hold to what they do not
REPEATS = {"cpu": 3, "cuda": 20}  # back to back
ROUNDS = 5
WEIGHT_PASSES = 9  # backward writes gradients, clipping reads; AdamW reads 4 numbers, writes 3


@dataclass(frozen=True)
class Product:
    """A matrix (rows, inner) times a matrix (inner, columns)."""

    rows: int
    inner: int
    columns: int

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.rows * self.inner * self.columns

    @property
    def numbers(self) -> int:
        """What is read and written, each once."""
        return self.rows * self.inner + self.inner * self.columns + self.rows * self.columns


def step_products(config: Config, tokens: int) -> list[Product]:
    """Return the products of a step's linear layers and head, forward and backward."""
    with torch.device("meta"):
        model = GPT(config)
    layers = [(m.in_features, m.out_features) for m in model.modules() if isinstance(m, nn.Linear)]
    if config.tied_head:
        layers.append((config.n_embd, config.vocab_size))
    return [
        product
        for wide, high in layers
        for product in (
            Product(tokens, wide, high),
            Product(tokens, high, wide),
            Product(high, tokens, wide),
        )
    ]


def attention_operations(config: Config, tokens: int) -> int:
    """Return a step's: two products forward and four backward, of each token with those before."""
    return 6 * config.n_layer * config.n_embd * config.block_size * tokens


def least_seconds(run: Callable[[], Tensor], device: str) -> float:
    """Return the seconds of one `run` in the quickest of some rounds; on a GPU without launches."""
    repeats = REPEATS[device]
    run()
    if device == "cuda":
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(repeats):
                run()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        if device == "cuda":
            graph.replay()
            torch.cuda.synchronize()
        else:
            for _ in range(repeats):
                run()
        times.append(time.perf_counter() - start)
    return min(times) / repeats


def measure_rate(product: Product, dtype: torch.dtype, device: str) -> float:
    """Return the operations a second of `product` alone."""
    a = torch.randn(product.rows, product.inner, device=device, dtype=dtype)
    b = torch.randn(product.columns, product.inner, device=device, dtype=dtype).t()
    return product.operations / least_seconds(lambda: a @ b, device)


def measure_bandwidth(size: int, device: str) -> float:
    """Return the bytes a second at which a block of `size` bytes is read and written again."""
    block = torch.ones(size // 4, device=device)
    return 2 * size / least_seconds(lambda: block.add_(1), device)


def measure_floor(config: Config, dtype: torch.dtype, device: str, tokens: int) -> float:
    """Return the least seconds of a step of `tokens` with products in `dtype`; say what is assumed.

    The step of GPT-2 that AdamW trains; what is neither product nor weight is taken for nothing.
    """
    products, side = step_products(config, tokens), SQUARE[device]
    shapes = {*products, Product(side, side, side)}
    rate = max(measure_rate(product, dtype, device) for product in shapes)
    speeds = {size: measure_bandwidth(size, device) for size in BLOCKS}

    def bandwidth(size: int) -> float:
        """Return a speed that `size` bytes do not exceed: the best of the blocks not far below."""
        below = max((block for block in BLOCKS if block <= size), default=BLOCKS[0])
        return max(speed for block, speed in speeds.items() if block >= below)

    def seconds(product: Product) -> float:
        size = product.numbers * dtype.itemsize
        return max(product.operations / rate, size / bandwidth(size))

    with torch.device("meta"):
        weights = 4 * GPT(config).count_parameters()
    parts = (
        sum(map(seconds, products)),
        attention_operations(config, tokens) / rate,
        WEIGHT_PASSES * weights / bandwidth(weights),
    )
    print(
        f"floor {sum(parts) * 1e3:.2f} ms: {parts[0] * 1e3:.2f} ms if each matrix product reads and"
        f" writes its numbers once, and none is above {rate / 1e9:,.0f} GFLOP/s, the best that any"
        f" of them and one of {side} x {side} reached alone; {parts[1] * 1e3:.2f} ms of causal"
        f" attention at that rate; {parts[2] * 1e3:.2f} ms for {weights / 1e6:.1f} MB of weights"
        f" {WEIGHT_PASSES} times at {bandwidth(weights) / 1e9:,.0f} GB/s; all else for nothing"
    )
    return sum(parts)
