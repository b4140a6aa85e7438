"""Short runs on the very text: what a small model learns of it, and how a chosen one begins."""

import time
from collections.abc import Callable, Sequence

from nanogpt2.config.config import make_config
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.experiments.plan.recipe import Choice, make_values
from nanogpt2.experiments.plan.timing import UNTIMED
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.tokens.tokenizer import CharTokenizer, Tokenizer
from nanogpt2.train.step import Stepper

PILOT = Choice(bpe=0, width=128, layers=2, block=128, batch=16, steps=300, dropout=0.0)
PILOT_JUDGED = 75, 150, 300  # steps
JUDGED = 60_000  # tokens of a text, in parts from all over it


def run_pilot(train: str, val: str, *, device: str) -> list[float]:
    """Return the losses of the pilot, a small model of characters, after 75, 150 and 300 steps.

    They are on `val`, in nats a character.
    """
    tokenizer = CharTokenizer.train([train, val])
    judged, _ = rehearse(PILOT, tokenizer, train, [val], device=device, judged=PILOT_JUDGED)
    return [loss for (loss,) in judged]


def rehearse(
    choice: Choice,
    tokenizer: Tokenizer,
    train: str,
    texts: Sequence[str],
    *,
    device: str,
    judged: Sequence[int],
    after_step: Callable[[int], object] = lambda step: None,
) -> tuple[list[list[float]], float]:
    """Train as `choice` says; return losses on `texts` after as many steps as `judged` says.

    They are in nats a character, whatever the tokenizer. And the seconds that a step took, but for
    the first ones. `after_step` is told each step's number.
    """
    values = {**make_values(choice), "vocab_size": tokenizer.size, "device": device}
    config = make_config(values, name="plan")
    tokens = {text: tokenizer.encode(text) for text in {train, *texts}}
    dataset = TokenDataset(tokens[train], config.block_size)
    model = GPT(config)
    stepper = Stepper(model, config, say=lambda line: None)
    losses, spent, began = [], 0.0, time.perf_counter()

    def judge(text: str) -> float:
        own = tokens[text]
        totals = evaluate_tokens(model, own, tokenizer, batch_size=64, max_tokens=JUDGED).totals
        return round(totals.nats / totals.tokens * len(own) / len(text), 5)

    for step in range(1, config.max_iters + 1):
        model.train()
        stepper.step(dataset, step - 1)
        after_step(step)
        if step == UNTIMED:
            stepper.synchronize()
            began = time.perf_counter()
        if step in judged:
            stepper.synchronize()
            spent += time.perf_counter() - began
            losses.append([judge(text) for text in texts])
            began = time.perf_counter()
    stepper.release()
    return losses, spent / max(config.max_iters - UNTIMED, 1)
