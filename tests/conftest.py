"""What tests share: one small text, a tiny configuration, an empty folder to run in."""

import gc
import os
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import warm
from every import EXAMPLES
from hypothesis import settings

from nanogpt2.config.config import Config, get_config

if TYPE_CHECKING:
    from browser import Browser

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the processes that tests start
# What is compiled once serves those with another HOME too.
os.environ.setdefault("XDG_CACHE_HOME", str(Path.home() / ".cache"))
# A shell lets what it has put behind ignore SIGINT, nohup SIGHUP, and so would what tests start.
for number, usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)
# the machine may be busy; and the same examples each time, so that a green main stays green
settings.register_profile("busy", deadline=None, derandomize=True, max_examples=EXAMPLES)
settings.load_profile("busy")

# Files that take longest go first, so that no worker is left alone at the end. There are three on
# two cores, since DVC waits for what it starts, and for the disk.
LONGEST = (
    *("test_distributed", "test_pipeline", "test_seeds", "test_faults", "test_gpu_kernels"),
    *("test_going_on", "test_branches", "test_crash", "test_page", "test_sanitizer"),
    *("test_checks", "test_resume", "test_gpu_decoding", "test_huggingface_out", "test_project"),
    *("test_notebook", "test_plan", "test_prepare", "test_playing", "test_sharing"),
    *("test_serving", "test_sizes", "test_onnx_out", "test_finetune", "test_config"),
    *("test_page_blocks", "test_site", "test_inputs", "test_variants", "test_distil"),
    *("test_ensemble", "test_forms", "test_loss", "test_choose", "test_output", "test_wheel"),
    *("test_watch", "test_killed", "test_threads", "test_experiments", "test_cpu", "test_hostile"),
    *("test_trainer", "test_compiler", "test_console", "test_file_systems", "test_docs"),
    *("test_engine", "test_follow", "test_collect", "test_cpu_decoding", "test_tokenizer_files"),
    *("test_held_out", "test_arguments", "test_generate", "test_choice", "test_structure"),
)


def pytest_xdist_setupnodes(config: pytest.Config, specs: list[Any]) -> None:
    """Let the processes that test be forked from one that has imported the tests."""
    for spec in specs:
        spec.python = warm.worker(*config.args)


def pytest_collectstart() -> None:
    """Prepare what a process that tests needs, and the one that hands out tests does not."""
    import torch  # takes a second

    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # kernels for a GPU run here too, slowly


def pytest_collection_finish() -> None:
    gc.freeze()  # what was imported stays: the collector need not look at it again and again
    gc.set_threshold(50_000, 20, 100)  # nor so often at the rest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    report.keywords = {}  # which nothing here reads: each report is sent to who hands out tests
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


TINY = {
    "device": "cpu",
    "vocab_size": 64,
    "block_size": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 16,
    "dropout": 0.0,
    "batch_size": 4,
    "max_iters": 6,
    "warmup_iters": 2,
    "eval_interval": 3,
    "eval_iters": 2,
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test in an empty folder, so that none writes into the project."""
    import torch

    from nanogpt2.model.operators import Operators

    monkeypatch.chdir(tempfile.mkdtemp(prefix="cwd-", dir=tmp_path_factory.getbasetemp()))
    Operators().seed(0)  # as torch.manual_seed, which takes 2 ms
    torch.set_num_threads(1)  # the tests of two processes share the cores


@pytest.fixture
def tiny() -> Config:
    return get_config(TINY)


@pytest.fixture
def text() -> str:
    return "the quick brown fox jumps over the lazy dog. " * 40


@pytest.fixture(scope="session")
def compiler() -> None:
    """What decodes on a CPU compiles here: asked late, or all that collect tests compile it."""
    from nanogpt2.decode.kernels import choose

    if not choose.compiles():
        pytest.skip("needs a C compiler")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A browser for the tests of a module, so that none hears of another's page."""
    from browser import CHROMIUM, chromium

    if CHROMIUM is None:
        pytest.skip("no chromium here: the page is tested in one")
    with chromium() as found:
        yield found
