"""Compiling the kernels of a run before it launches them, several at a time.

Triton compiles a kernel in about a second when it is first called, one after another.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

import torch
import triton
from torch import Tensor
from triton import JITFunction

from nanogpt2.base.system.files import sha256
from nanogpt2.config.config import MODEL_KEYS, Config
from nanogpt2.device.device import autocast
from nanogpt2.model.gpt import GPT
from nanogpt2.model.modes import kept_generators
from nanogpt2.model.operators import Operators

try:
    from triton import AsyncCompileMode, knobs
    from triton.runtime import driver
    from triton.runtime.cache import triton_key
except ImportError:  # another version of Triton: kernels are compiled when they are called
    AsyncCompileMode = triton_key = None

LAYERS = 2  # of the model that shows what is launched: the first has no branch to add
MOST_TOKENS = 16384  # more of them take the same kernels
AT_ONCE = 16  # kernels


class Pool(ThreadPoolExecutor):
    """Compiles kernels, and loads them with what launches them, which a C compiler makes.

    They are loaded for the GPU of the thread that made this: a thread begins with the first one.
    """

    def __init__(self) -> None:
        current = driver.active.get_current_device()
        initializer = driver.active.set_current_device
        super().__init__(AT_ONCE, initializer=initializer, initargs=(current,))

    def submit(self, compiles: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Compile a kernel in a thread, and load it."""
        return super().submit(lambda: _loaded(compiles()))


def _loaded(kernel: Any) -> Any:
    """Return `kernel`, which is loaded when one asks for what runs it."""
    with suppress(Exception):  # the checks will find it
        kernel.run  # noqa: B018
    return kernel


def hash_beside() -> None:
    """Hash the files of Triton in a thread: half a second, before the first kernel can be named."""
    if triton_key is not None:
        Thread(target=triton_key, daemon=True).start()


@contextmanager
def compiling_ahead(
    operators: Operators,
    source: ModuleType,
    config: Config,
    device: torch.device,
    dtype: torch.dtype,
) -> Iterator[None]:
    """Compile those kernels of `source` that a run of `config` with `operators` launches.

    It goes on beside what is done within, and has ended then. What does not compile is left to
    the checks to find. Where such a run was here before, Triton has its kernels on disk.
    """
    kernels = [each for each in vars(source).values() if isinstance(each, JITFunction)]
    if AsyncCompileMode is None or not kernels:  # Triton's interpreter has others
        yield
        return
    mark = _mark(operators, source, config, dtype)
    if mark.exists():
        yield
        return
    with Pool() as pool, AsyncCompileMode(pool, ignore_errors=True):
        with not_launched(kernels), suppress(Exception):  # such as that memory runs out
            show(operators, config, device, dtype)
        yield
    with suppress(OSError):
        mark.touch()


def _mark(operators: Operators, source: ModuleType, config: Config, dtype: torch.dtype) -> Path:
    """Return the file that says, beside what Triton keeps, that a run was here before."""
    machine = triton.__version__, driver.active.get_current_target()
    shape = [config[key] for key in MODEL_KEYS if key != "n_layer"]
    kind = repr((machine, type(operators).__name__, dtype, shape, config.batch_size % 16))
    code = Path(str(source.__file__)).read_bytes()
    return Path(knobs.cache.dir, f"nanogpt2-{sha256(code + kind.encode())[:16]}")


@contextmanager
def not_launched(kernels: Iterable[Any]) -> Iterator[None]:
    """Let calls of `kernels` compile them and no more."""
    kernels = list(kernels)
    for kernel in kernels:
        kernel.run = without_launch(kernel.run)
    try:
        yield
    finally:
        for kernel in kernels:
            del kernel.run


def without_launch(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return `run` of a kernel, by which all calls go, that only compiles it."""
    return lambda *args, warmup, **options: run(*args, warmup=True, **options)


def show(operators: Operators, config: Config, device: torch.device, dtype: torch.dtype) -> None:
    """Do what an evaluation and a step of a run do, on numbers that mean nothing.

    Whether 16 divides a size is compiled into a kernel: it is as in the run.
    """
    V = config.vocab_size
    few = V if V <= MOST_TOKENS else MOST_TOKENS + V % 16
    model = GPT(dataclasses.replace(config, n_layer=LAYERS, vocab_size=few)).to(device)
    model.use(operators)
    rows = config.batch_size % 16 or 16
    idx = torch.zeros(rows, config.block_size, dtype=torch.long, device=device)

    def loss() -> Tensor:
        with operators.cast_weights(model.factors(), dtype), autocast(device, dtype)():
            return model.loss(idx, idx)

    # In the thread that knows the mode: torch's own of a GPU would wait for each kernel.
    with kept_generators(device), torch.autograd.set_multithreading_enabled(False):
        with torch.no_grad():
            model.eval()
            loss()
        model.train()
        loss().backward()  # type: ignore[no-untyped-call]
