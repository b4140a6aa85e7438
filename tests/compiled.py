"""Counts the kernels that training compiles for a GPU: before its first check, and from then on.

python compiled.py cuda small   # a run
python compiled.py cpu small    # without a GPU: kernels are compiled for one, and none is launched
"""

import sys
import tempfile
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from nanogpt2.config.config import get_config
from nanogpt2.kernels import choose, gpu, gpu_kernels
from nanogpt2.kernels.checks.check import find_fault, is_torchs
from nanogpt2.kernels.checks.gpu_ahead import compiling_ahead, not_launched, show
from nanogpt2.kernels.checks.samples import Samples
from nanogpt2.kernels.checks.trials import TRIALS
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.trainer import Trainer

compiled: list[str] = []
make = triton.JITFunction._do_compile


def count(self: Any, *args: Any) -> Any:
    compiled.append(self.__name__)
    return make(self, *args)


triton.JITFunction._do_compile = count
shape = {"n_embd": 64, "n_head": 2, "n_layer": 3, "batch_size": 24, "block_size": 48}
changes = {"dropout": 0.1, "max_iters": 4, "eval_interval": 2, "eval_iters": 2, "vocab_size": 100}
config = get_config(sys.argv[2], **changes, **shape, device=sys.argv[1], save_checkpoint=False)


def run_on_gpu() -> None:
    check = vars(choose)["check_operators"]

    def check_counted(*args: Any, **options: Any) -> Any:
        print(f"ahead {len(compiled)}")
        compiled.clear()
        return check(*args, **options)

    vars(choose)["check_operators"] = check_counted
    text = CharDataset("the quick brown fox jumps over the lazy dog. " * 90, 48)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(GPT(config), config, resume_root=folder).train(text, text)


class Driver:
    """Says that a GPU of the Hopper generation is there."""

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, _: int) -> None:
        pass

    def get_current_stream(self, _: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def compile_without_gpu() -> None:
    driver.set_active(Driver())
    device, dtype = torch.device("cpu"), torch.bfloat16
    fused = gpu.FusedOperators(device)
    with compiling_ahead(fused, gpu_kernels, config.resolved(), device, dtype):
        print(f"ahead {len(compiled)}")
    compiled.clear()
    kernels = [each for each in vars(gpu_kernels).values() if isinstance(each, triton.JITFunction)]
    with not_launched(kernels):
        show(fused, config.resolved(), device, dtype)
        samples = Samples(config, device, dtype, 1e9)
        samples.T = 48
        for name, trial in TRIALS.items():
            if not is_torchs(fused, name):
                find_fault(lambda: trial(fused, samples))  # noqa: B023


run_on_gpu() if sys.argv[1] == "cuda" else compile_without_gpu()
print(f"later {compiled}")
