"""A torch that was built without torch.distributed trains, in one process."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Takes out of torch's extension module, as it is loaded, what such builds do not have.
PROGRAM = """
import importlib.machinery, os, sys

LACKING = ("_c10d", "_distributed", "_rpc", "_dist_autograd", "_faulty")
exec_module = importlib.machinery.ExtensionFileLoader.exec_module

def exec_without(loader, module):
    exec_module(loader, module)
    if module.__name__ == "torch._C":
        for name in [name for name in vars(module) if name.startswith(LACKING)]:
            delattr(module, name)
        sys.modules["torch._C._distributed_c10d"] = None

importlib.machinery.ExtensionFileLoader.exec_module = exec_without
import torch

assert not torch.distributed.is_available()
from nanogpt2 import GPT, CharDataset, Trainer, get_config
from nanogpt2.base.system.errors import DeviceError
from nanogpt2.device.group import joined

small = {"n_layer": 1, "n_embd": 16, "n_head": 1, "block_size": 8, "batch_size": 4}
config = get_config("nano", **small, max_iters=2, eval_iters=1, device="cpu", compile=False)
data = CharDataset("a text of some characters. " * 9, 8)
record = Trainer(GPT(config), config).train(data, data)
print(record.step)
os.environ |= {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
try:
    with joined(config):
        pass
except DeviceError as error:
    print(error)
sys.stdout.flush()
os._exit(0)
"""


def test_one_process_trains_and_two_are_refused_in_a_line(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={name: os.environ[name] for name in ("PATH", "HOME", "XDG_CACHE_HOME")}
        | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    *_, steps, refused = done.stdout.splitlines()
    assert steps == "2"
    assert refused == (
        "num_processes: found 2; allowed: 1, since this build of torch has no torch.distributed"
    )
