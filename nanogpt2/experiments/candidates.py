"""Which tokenizer suits a text: each is trained with for equal seconds, and bits per byte judge.

Losses per token cannot be compared where tokens differ: a longer token is harder to predict.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from nanogpt2.base.screen.screen import done, phase
from nanogpt2.base.system.errors import ConfigError
from nanogpt2.config import yaml12
from nanogpt2.config.config import SCRATCH, Config, make_config, set_values
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.evaluate.metrics import summarise
from nanogpt2.model.gpt import GPT
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.tokens.bpe.words import find_cut
from nanogpt2.tokens.dataset import Dataset, TokenDataset, load_tokens
from nanogpt2.tokens.tokenizer import Tokenizer, train_tokenizer
from nanogpt2.train.batches import Batches
from nanogpt2.train.step import Stepper

SIZES = (512, 1024, 2048, 4096, 8192)  # of bpe
TRAIN_BYTES = 2**26  # of the training text, from its start: more than minutes of training can read
VAL_BYTES = 400_000
UNTIMED = 4  # steps in which kernels are compiled and a GPU records its graph
SCHEDULE = 1_000_000  # steps of the learning rate's schedule, which goes by the clock


@dataclass(frozen=True)
class Outcome:
    """What training with a tokenizer came to; the loss is in nats per token."""

    tokenizer: str
    vocab_size: int
    bytes_per_token: float
    steps: int
    loss: float
    bits_per_byte: float


def compare_tokenizers(
    params: Path,
    *,
    seconds: float,
    write: bool,
    show: Callable[[str], object],
    sizes: Sequence[int] = SIZES,
) -> None:
    """Train with char, byte and bpe of each of `sizes`, `show` the table, and `write` the best.

    All but tokenizer and vocab_size is as in the file `params`, where the best are written.
    ConfigError where the run would start from trained weights, which have a tokenizer.
    """
    config = read_config(params)
    train_text, val_text = read_texts(config)
    with phase("making tokenizers"):
        candidates = list(list_candidates(train_text, val_text, sizes))
    show(f"{len(candidates)} tokenizers, each trained with for {seconds:g} s\n{HEAD}")
    outcomes = []
    for tokenizer in candidates:
        with phase(f"training with {tokenizer.name} of {tokenizer.size:,}"):
            outcome = try_tokenizer(config, tokenizer, train_text, val_text, seconds=seconds)
        outcomes.append(outcome)
        show(describe(outcomes[-1]))
    best = min(outcomes, key=lambda outcome: outcome.bits_per_byte)
    values = {"tokenizer": best.tokenizer, "vocab_size": best.vocab_size}
    show("best: " + ", ".join(f"{key} {value}" for key, value in values.items()))
    done(f"{len(outcomes)} tokenizers", to=params if write else None)
    if write:
        changes = set_values(params, values)
        show("\n".join(changes) or f"{params} has these values already")


def read_config(params: Path) -> Config:
    """Return the configuration in `params`, whatever its tokenizer is, `auto` too."""
    values = {**yaml12.read(params), "tokenizer": "byte", "vocab_size": 256}
    config = make_config(values, name=params.name)
    if config.init_from != SCRATCH:
        raise ConfigError(
            f"init_from: found {config.init_from}; allowed: {SCRATCH}: trained weights have their"
            " tokenizer, tokenizer: from_init"
        )
    return config


def read_texts(config: Config) -> tuple[str, str]:
    """Return the starts of the training and validation text, as `prepare` splits the corpus."""
    fractions = config.val_fraction, config.test_fraction
    with TemporaryDirectory() as folder:
        prepared = Path(folder, "prepared")
        prepare(config.corpus, prepared, tokenizer="byte", vocab_size=256, fractions=fractions)
        train, val = (
            load_tokens(prepared, split)[:most].astype(np.uint8).tobytes().decode("utf-8", "ignore")
            for split, most in (("train", TRAIN_BYTES), ("val", VAL_BYTES))
        )
    return train, val


def list_candidates(train: str, val: str, sizes: Sequence[int]) -> Iterator[Tokenizer]:
    """Yield the tokenizers to compare; a bpe for which the text has too few pairs is left out."""
    yield train_tokenizer("char", [train, val], vocab_size=0)
    yield train_tokenizer("byte", [], vocab_size=256)
    yield from train_bpes(train, sizes)


def train_bpes(text: str, sizes: Iterable[int]) -> Iterator[Tokenizer]:
    """Yield a bpe of each of `sizes`, but of those for which `text` has too few pairs."""
    whole_words = text[: find_cut(text) or None]
    for size in sizes:
        tokenizer = train_tokenizer("bpe", [whole_words], vocab_size=size)
        if tokenizer.size == size:
            yield tokenizer


def try_tokenizer(
    config: Config,
    tokenizer: Tokenizer,
    train: str,
    val: str,
    *,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Train for `seconds` by the `clock` on the text `train` and evaluate on `val`."""
    vocab_size = max(tokenizer.size, 256)
    config = make_config(
        {
            **config.to_dict(),
            "vocab_size": vocab_size,
            "num_processes": 1,
            "warmup_iters": round(SCHEDULE * min(config.warmup_iters / config.max_iters, 1)),
            "max_iters": SCHEDULE,
        },
        name="configuration",
    )
    dataset = TokenDataset(tokenizer.encode(train), config.block_size, name="the train split")
    tokens = tokenizer.encode(val)
    model = GPT(config)
    steps = train_for(Stepper(model, config), dataset, seconds, clock=clock)
    score = evaluate_tokens(model, tokens, tokenizer, batch_size=config.evaluate.batch_size)
    figures = summarise(score.totals)
    return Outcome(
        tokenizer.name,
        vocab_size,
        bytes_per_token=score.totals.bytes / score.totals.tokens,
        steps=steps,
        loss=figures["loss"],
        bits_per_byte=figures["bits_per_byte"],
    )


class SuccessiveBatches(Batches):
    """The batches of steps 0, 1, 2 and so on, whatever step the schedule is at."""

    def __init__(self, config: Config, device: torch.device) -> None:
        super().__init__(config.seed, device, sampling=config.sampling)
        self.drawn = itertools.count()

    def draw(self, dataset: Dataset, count: int, step: int) -> torch.Tensor:
        """Return the windows of the next step."""
        return super().draw(dataset, count, next(self.drawn))


def train_for(
    stepper: Stepper,
    dataset: TokenDataset,
    seconds: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
    untimed: int = UNTIMED,
) -> int:
    """Train for `seconds` by the `clock` and return the number of steps.

    The schedule of the learning rate goes by the clock too, so that each tokenizer sees all of it
    without its speed being known before; batches follow each other as in any run. The first
    `untimed` steps, which compile, are not timed.
    """
    stepper.model.train()
    stepper.batches = SuccessiveBatches(stepper.config, stepper.device)
    step, done, began = 0, 0, 0.0 if untimed else clock()
    while step < SCHEDULE:
        stepper.step(dataset, step)
        done += 1
        if done % 8 == 0 or done <= untimed:
            stepper.synchronize()  # a GPU would be far behind the clock
        now = clock()
        if done <= untimed:
            began = now
        step = max(step + 1, int((now - began) / seconds * SCHEDULE))
    stepper.ema.keep()
    stepper.synchronize()
    stepper.release()
    return done


HEAD = "tokenizer  vocab_size  bytes/token    steps  loss/token  bits/byte"


def describe(outcome: Outcome) -> str:
    """Return the row of the table."""
    return (
        f"{outcome.tokenizer:<9}  {outcome.vocab_size:>10,}  {outcome.bytes_per_token:>11.3f}"
        f"  {outcome.steps:>7,}  {outcome.loss:>10.4f}  {outcome.bits_per_byte:>9.4f}"
    )
