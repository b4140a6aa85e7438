"""docs/machines.md keeps its word: what the library refuses or leaves to torch is `no` there."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch
from imports import ROOT

from nanogpt2.base.system.errors import DeviceError
from nanogpt2.config import yaml12
from nanogpt2.config.config import Config, get_config
from nanogpt2.decode.kernels import choose as decoding
from nanogpt2.decode.kernels import cpu_library
from nanogpt2.device import compiler, group
from nanogpt2.device.device import precision_dtype
from nanogpt2.kernels.choose import find_operators
from nanogpt2.model.gpt import GPT
from nanogpt2.model.operators import TORCH
from nanogpt2.train.unfinished.aside import HostCopy

PAGE = (ROOT / "docs/machines.md").read_text(encoding="utf-8")
STATUS = re.compile(r"tested \(([a-z])\)|expected|no|as CPU")
KINDS = {"MPS": "mps", "NVIDIA": "cuda", "AMD": "cuda"}  # other machines compute on the CPU
HOPPER = (9, 0)


def tables() -> list[dict[str, dict[str, str]]]:
    """Return each table of the page: rows of columns."""
    found: list[dict[str, dict[str, str]]] = []
    for block in re.findall(r"(?m)(?:^\|.*\n)+", PAGE):
        head, _, *rows = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()
        ]
        named = (dict(zip(head, row, strict=True)) for row in rows)
        found.append({row[head[0]].replace("`", ""): row for row in named})
    return found


MACHINES, PROCESSORS, GPUS = tables()
COLUMNS = [column for column in next(iter(MACHINES.values())) if column]


@pytest.fixture(params=COLUMNS)
def column(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A machine of the page, as which this one now behaves."""
    name: str = request.param
    if "Windows" in name:
        monkeypatch.setattr(sys, "platform", "win32")
    if "AMD" in name:
        monkeypatch.setattr(torch.version, "hip", "6.4.43484")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: HOPPER)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    caches = (compiler.load_library, cpu_library.load, decoding.compiles, decoding.kernels_work)
    for each in caches:
        each.cache_clear()
    yield name
    for each in caches:
        each.cache_clear()


@pytest.fixture
def device(column: str) -> torch.device:
    return torch.device(next((kind for word, kind in KINDS.items() if word in column), "cpu"))


def allows(work: Callable[[], object]) -> bool:
    """Return whether `work` is not refused, and gives nothing false."""
    with suppress(DeviceError):
        return work() is not False
    return False


def test_what_the_library_refuses_is_no_and_nothing_else_is(
    column: str, device: torch.device, tiny: Config
) -> None:
    on_cpu, is_nvidia = device.type == "cpu", "NVIDIA" in column
    model = GPT(tiny).to("cpu" if on_cpu else "meta")  # with nothing compiled for the CPU
    config = get_config({**tiny.to_dict(), "precision": "fp32", "device": "cpu"})
    two = get_config({**tiny.to_dict(), "num_processes": 2, "batch_size": 2, "device": "cpu"})
    taken = {
        "compiled kernels of training": is_nvidia  # whose Triton needs the GPU
        or find_operators(config, device, say=lambda _: None) is not TORCH,
        "bfloat16 products (bf16)": allows(lambda: precision_dtype("bf16", device)),
        "float16 products (fp16)": allows(lambda: precision_dtype("fp16", device)),
        "products of 8 bits (fp8)": allows(lambda: precision_dtype("fp8", device)),
        "states written while training goes on": device.type == "cuda"  # which pins its memory
        or HostCopy(device).make_room(64),
        "several processes (ddp)": allows(lambda: group.check_group(two, device, 2)),
        "compiled kernels of decoding": decoding.takes_compiled(model)
        if on_cpu
        else device.type == "cuda" and decoding.kernels_work(device),
        "weights of 8 bits (--int8)": allows(lambda: decoding.prepare(model, int8=True)),
    }
    said = {row: MACHINES[row][column] != "no" for row in taken}
    assert taken == said
    others = MACHINES.keys() - taken.keys()
    assert not [row for row in others if MACHINES[row][column] == "no"]


@pytest.mark.parametrize("name", GPUS)
def test_a_generation_of_gpus_computes_as_the_page_says(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = GPUS[name]
    major, minor = map(int, row["compute capability"].split("."))
    device = torch.device("cuda")
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda *_: (major, minor))
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **_: major >= 8)  # torch's own rule
    decoding.kernels_work.cache_clear()
    found = {
        "`precision: auto`": str(precision_dtype("auto", device)).removeprefix("torch."),
        "`fp8`": "yes" if allows(lambda: precision_dtype("fp8", device)) else "no",
        "kernels of decoding": "yes" if decoding.kernels_work(device) else "no",
    }
    decoding.kernels_work.cache_clear()
    if importlib.util.find_spec("triton") is None:
        del found["kernels of decoding"]
    assert found == {key: row[key] for key in found}


MARCH = {
    "x86-64 with AMX or AVX-512 BF16": "sapphirerapids",
    "x86-64 with AVX-512": "x86-64-v4",
    "x86-64 with AVX2": "x86-64-v3",
    "older x86-64": "x86-64",
    "ARM64": "armv8-a",
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_vectors_of_a_processor_are_as_wide_as_the_page_says(name: str) -> None:
    for compiler_of in ("cc", "aarch64-linux-gnu-gcc"):
        if shutil.which(compiler_of) is None:
            continue
        command = f"{compiler_of} -march={MARCH[name]} -E -dM {ROOT}/nanogpt2/device/vectors.h"
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            (lanes,) = re.findall(r"(?m)^#define LANES (\d+)$", done.stdout)
            assert lanes == PROCESSORS[name]["floats in a vector"]
            return
    pytest.skip(f"no compiler for {name} here")


@pytest.mark.parametrize("has", [True, False])
def test_a_cpu_multiplies_in_bfloat16_where_it_has_hardware_for_it(
    has: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nanogpt2.device.torch_private.cpu_has_bf16", lambda: has)
    chosen = str(precision_dtype("auto", torch.device("cpu"))).removeprefix("torch.")
    said = {row["`precision: auto` with `compile`"] for name, row in PROCESSORS.items()
            if ("BF16" in name) is has}  # fmt: skip
    assert said == {chosen}


@cache
def jobs() -> dict[str, object]:
    found: dict[str, object] = yaml12.read(ROOT / ".github/workflows/ci.yml")["jobs"]
    return found


def test_each_way_of_testing_is_explained_and_is_there() -> None:
    cells = [cell for row in MACHINES.values() for head, cell in row.items() if head]
    cells += [row["status"] for row in (*PROCESSORS.values(), *GPUS.values())]
    assert all(STATUS.fullmatch(cell) for cell in cells)
    used = {found[1] for cell in cells if (found := STATUS.fullmatch(cell)) and found[1]}
    explained = dict(re.findall(r"(?ms)^- \*\*\((\w)\)\*\* (.*?)(?=\n\n|\n- )", PAGE))
    assert used == explained.keys()
    assert {"test", "machines"} <= jobs().keys()
    assert all(word in "".join(explained.values()) for word in ("`test`", "pytest", "ci/arm.sh"))


@pytest.fixture(scope="module")
def smoke() -> ModuleType:
    path = Path(ROOT, "ci/smoke.py")
    found = importlib.util.spec_from_file_location("smoke", path)
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_the_smoke_of_ci_tries_rows_of_the_page(smoke: ModuleType) -> None:
    """CI alone runs it, on machines that are not this one: it takes most of a minute."""
    assert smoke.CHECKS.keys() <= MACHINES.keys()
    left = MACHINES.keys() - smoke.CHECKS.keys()
    assert left == {
        "float16 products (fp16)",
        "products of 8 bits (fp8)",
        "states written while training goes on",
    }
