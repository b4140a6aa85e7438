"""How quickly this machine trains: steps of some shapes are timed, those of others follow."""

import gc
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch

from nanogpt2.config.config import Config, make_config
from nanogpt2.evaluate.evaluate import predict
from nanogpt2.experiments.plan.recipe import count_flops
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.train.step import Stepper

UNTIMED = 3  # steps in which kernels are compiled and a GPU records its graph
LEAST_STEPS, MOST_STEPS = 6, 200
ROUND = 3  # steps between two looks at the clock
SECONDS = 2.0  # of timing at least, where steps are quick


@dataclass(frozen=True)
class Timing:
    """Seconds of a step and of a forward pass of its batch, and bytes of memory."""

    step: float
    forward: float
    memory: int


def time_steps(values: Mapping[str, Any], *, seconds: float) -> Timing:
    """Train a model of the configuration `values` on random tokens for about `seconds`.

    Memory is what was allocated on a GPU at most; on a CPU what this process held.
    """
    config = make_config(values, name="plan").resolved()
    model = GPT(config)
    stepper = Stepper(model, config, say=lambda line: None)
    dataset = random_tokens(config)
    if stepper.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(stepper.device)
    model.train()
    for step in range(UNTIMED):
        stepper.step(dataset, step)
    stepper.synchronize()
    rounds: list[float] = []
    began = now = time.perf_counter()
    step, most = UNTIMED, psutil.Process().memory_info().rss
    while len(rounds) * ROUND < LEAST_STEPS or (
        now - began < seconds and len(rounds) * ROUND < MOST_STEPS
    ):
        for _ in range(ROUND):
            stepper.step(dataset, step)
            step += 1
        stepper.synchronize()
        then, now = now, time.perf_counter()
        rounds.append((now - then) / ROUND)
        most = max(most, psutil.Process().memory_info().rss)
    forward = time_forward(stepper, dataset)
    on_gpu = stepper.device.type == "cuda"
    memory = torch.cuda.max_memory_allocated(stepper.device) if on_gpu else most
    stepper.release()
    del stepper, model
    gc.collect()  # a CUDA graph, and with it its memory
    if on_gpu:
        torch.cuda.empty_cache()
    return Timing(statistics.median(rounds), forward, memory)


def time_forward(stepper: Stepper, dataset: TokenDataset) -> float:
    """Return the seconds in which a batch is evaluated."""
    config = stepper.config
    windows = stepper.batches.draw(dataset, config.batch_size, 0)
    batch = next(stepper.batches.read(dataset, windows, config.batch_size))[0]
    stepper.model.eval()
    spent = []
    for _ in range(3):
        began = time.perf_counter()
        predict(stepper.model, batch)
        stepper.synchronize()
        spent.append(time.perf_counter() - began)
    return min(spent)


def random_tokens(config: Config) -> TokenDataset:
    """Return tokens that nothing can be learnt of, enough for some batches."""
    count = max(4 * config.batch_size, 64) * config.block_size + 1
    drawn = np.random.default_rng(0).integers(0, config.vocab_size, count, dtype=np.int64)
    return TokenDataset(drawn.astype(np.uint16), config.block_size)


class Clock:
    """Seconds of a step of any shape, from those that were timed.

    A rough law, so long for each operation and so long for each layer, is fitted to all of them; a
    Gaussian process over logarithms of the shape carries what it missed to shapes nearby.
    """

    SPREAD, NEAR, NOISE = 0.3, 1.0, 0.02  # of what the rough law misses; logarithms

    def __init__(self) -> None:
        self.shapes: list[npt.NDArray[np.float64]] = []
        self.seconds: list[float] = []

    def add(self, shape: Mapping[str, Any], seconds: float) -> None:
        """Take note that a step of `shape` (width, layers, block, batch, vocab_size) was timed.

        What was known of the same shape before is forgotten.
        """
        new = _shape(shape)[0]
        for at, known in enumerate(self.shapes):
            if np.array_equal(known, new):
                self.seconds[at] = seconds
                return
        self.shapes.append(new)
        self.seconds.append(seconds)

    def predict(self, shapes: Mapping[str, Any]) -> npt.NDArray[np.float64]:
        """Return the seconds of a step of each of `shapes`, columns as `add` has single ones."""
        known, asked = np.array(self.shapes), _shape(shapes)
        seconds = np.log(self.seconds)
        ratio = min(RATIOS, key=lambda ratio: float(np.var(seconds - np.log(_cost(known, ratio)))))
        missed = seconds - np.log(_cost(known, ratio))
        mean = missed.mean()
        within = self._alike(known, known) + self.NOISE**2 * np.eye(len(known))
        rest = self._alike(asked, known) @ np.linalg.solve(within, missed - mean)
        predicted: npt.NDArray[np.float64] = np.exp(np.log(_cost(asked, ratio)) + mean + rest)
        return predicted

    def _alike(self, a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        logs = np.log(a)[:, None, :], np.log(b)[None, :, :]
        squares = ((logs[0] - logs[1]) ** 2).sum(-1)
        alike: npt.NDArray[np.float64] = self.SPREAD**2 * np.exp(-squares / (2 * self.NEAR**2))
        return alike


RATIOS = [0.0, *np.geomspace(1e6, 1e11, 41)]  # operations in the time that a layer takes at least
PARTS = "width", "layers", "block", "batch", "vocab_size"


def _shape(shapes: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    parts = np.broadcast_arrays(*(np.atleast_1d(shapes[part]) for part in PARTS))
    return np.stack(parts, axis=1).astype(np.float64)


def _cost(shapes: npt.NDArray[np.float64], ratio: float) -> npt.NDArray[np.float64]:
    width, layers, block, batch, vocab_size = shapes.T
    work = batch * block * count_flops(width, layers, block, vocab_size)
    cost: npt.NDArray[np.float64] = work + ratio * layers
    return cost
