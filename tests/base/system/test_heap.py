"""Memory that is freed stays with a process that computes, and goes back when it is told to."""

import ctypes
import platform
import resource

import numpy as np
import psutil
import pytest
import torch

from nanogpt2.base.system import heap
from nanogpt2.config.config import get_config
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.tokens.tokenizer import ByteTokenizer
from nanogpt2.train.step import Stepper

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another library of C")

FEW = 1000  # pages; a step that keeps none asks for some times as many
SHAPE = {"vocab_size": 256, "n_layer": 2, "n_head": 4, "n_embd": 128, "block_size": 128}
TOKENS = np.arange(20_000, dtype=np.uint16) % 256


def count_pages() -> int:
    """Return how many pages the system has given this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.fixture(autouse=True)
def _as_glibc_begins() -> None:
    """Let this process give back what is freed, whatever was computed in it before."""
    for threshold in (heap.M_TRIM_THRESHOLD, heap.M_MMAP_THRESHOLD):
        ctypes.CDLL(None).mallopt(threshold, 1 << 17)


def test_steps_that_are_alike_ask_the_system_for_little_memory() -> None:
    config = get_config({**SHAPE, "batch_size": 32, "device": "cpu"})
    stepper, dataset = Stepper(GPT(config), config), TokenDataset(TOKENS, config.block_size)
    for step in range(4):
        stepper.step(dataset, step)
    before = count_pages()
    for step in range(4, 12):
        stepper.step(dataset, step)
    assert count_pages() - before < 8 * FEW


def test_batches_of_an_evaluation_ask_for_little_either() -> None:
    model = GPT(get_config({**SHAPE, "device": "cpu"})).eval()
    evaluate_tokens(model, TOKENS, ByteTokenizer(), batch_size=32)
    before = count_pages()
    evaluate_tokens(model, TOKENS, ByteTokenizer(), batch_size=32)
    assert count_pages() - before < 5 * FEW  # of five batches


def test_what_is_kept_goes_back() -> None:
    config = get_config({**SHAPE, "device": "cpu"})
    stepper = Stepper(GPT(config), config)  # keeps memory from now on
    blocks = [torch.ones(2**20) for _ in range(64)]
    full = psutil.Process().memory_info().rss
    del blocks
    kept = psutil.Process().memory_info().rss
    stepper.release()
    left = psutil.Process().memory_info().rss
    assert full - kept < 2**26 < full - left
    heap.release_memory()  # again: there is nothing to give
