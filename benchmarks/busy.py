"""Speed beside other work: N programs that keep a core busy each, and the library among them.

    python benchmarks/busy.py

Training steps, evaluation of a split and generation are timed in two processes in turn: one whose
idle threads spin, as GNU's OpenMP lets them, and one that does as the library does. The fair share
is the quiet time x (threads + N) / cores: what a scheduler leaves that gives each thread as much.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import click

MODES = {"spinning": {"GOMP_SPINCOUNT": "300000"}, "as it is": {}}  # libgomp's count; the library's
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
WORKS = ("training step", "evaluation", "generation")
EVALUATED, GENERATED = 8192, 50  # tokens, in one text; and in each of SAMPLES
SAMPLES = 5
SETTLING_SECONDS = 1.0  # the library looks four times a second at what others do
BUSY = """
import os
parent = os.getppid()
while os.getppid() == parent: pass
"""


# --- The process that works ---


def make_works(preset: str) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name, on a model of `preset` and random tokens."""
    import numpy as np
    import torch

    from nanogpt2.config.config import get_config
    from nanogpt2.decode.draw import Controls
    from nanogpt2.evaluate.evaluate import evaluate_tokens
    from nanogpt2.model.gpt import GPT
    from nanogpt2.sample.generate import generate
    from nanogpt2.tokens.dataset import TokenDataset
    from nanogpt2.tokens.tokenizer import ByteTokenizer
    from nanogpt2.train.step import Stepper

    config = get_config(preset, device="cpu")
    tokens = np.random.default_rng(0).integers(0, 256, 1_000_000).astype(np.uint16)
    dataset, model = TokenDataset(tokens, config.block_size), GPT(config)
    stepper = Stepper(GPT(config), config, say=lambda line: print(line, file=sys.stderr))
    start = torch.zeros(SAMPLES, 1, dtype=torch.long)
    steps = iter(range(10**9))

    def evaluate() -> object:
        batch_size = config.evaluate.batch_size
        return evaluate_tokens(model, tokens[:EVALUATED], ByteTokenizer(), batch_size=batch_size)

    return {
        "training step": lambda: stepper.step(dataset, next(steps)).figures[0].item(),
        "evaluation": evaluate,
        "generation": lambda: generate(model, start, GENERATED, controls=Controls(), seed=0),
    }


def repeat(work: Callable[[], object], seconds: float) -> float:
    """Return the milliseconds of one `work`, the mean of as many as fill `seconds`."""
    start, done = time.perf_counter(), 0
    while not done or time.perf_counter() - start < seconds:
        work()
        done += 1
    return (time.perf_counter() - start) / done * 1e3


def serve(preset: str, seconds: float) -> None:
    """Answer each line on stdin, the name of a work, with its milliseconds."""
    works = make_works(preset)
    for name in map(str.strip, sys.stdin):
        repeat(works[name], SETTLING_SECONDS)
        print(json.dumps(repeat(works[name], seconds)), flush=True)


# --- The process that asks ---


@contextmanager
def running(command: list[str], **changes: str) -> Iterator[subprocess.Popen[str]]:
    """Run `command`, with these variables and no other settings of idle threads; end it after."""
    env = {key: value for key, value in os.environ.items() if key not in SETTINGS} | changes
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ask(worker: subprocess.Popen[str], work: str) -> float:
    """Return the milliseconds that `worker` takes for `work`."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{work}\n")
    worker.stdin.flush()
    return float(json.loads(worker.stdout.readline()))


def measure_beside(
    n_busy: int, workers: dict[str, subprocess.Popen[str]], rounds: int
) -> dict[tuple[str, str], float]:
    """Return the median milliseconds of each work in each mode, beside `n_busy` programs."""
    times: dict[tuple[str, str], list[float]] = {}
    with ExitStack() as stack:
        for _ in range(n_busy):
            stack.enter_context(running([sys.executable, "-S", "-c", BUSY]))
        for number in range(rounds):
            for work in WORKS:
                for mode in list(MODES)[:: 1 if number % 2 else -1]:
                    times.setdefault((work, mode), []).append(ask(workers[mode], work))
    return {key: statistics.median(found) for key, found in times.items()}


@click.command()
@click.option("--beside", multiple=True, default=[0, 1, 2, 10], show_default=True, help="N.")
@click.option("--preset", default="nano", show_default=True)
@click.option("--threads", default=os.cpu_count() or 1, show_default=True, help="Of each process.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--seconds", default=2.0, show_default=True, help="That a measurement fills.")
@click.option("--worker", is_flag=True, hidden=True)
def main(
    beside: tuple[int, ...], preset: str, threads: int, rounds: int, seconds: float, worker: bool
) -> None:
    """Print milliseconds, the fair share, and both modes in fair shares."""
    if worker:
        return serve(preset, seconds)
    cores = os.cpu_count() or 1
    print(f"{cores} cores, {threads} threads, {preset}; medians of {rounds}, ms")
    print(f"evaluation of {EVALUATED} tokens, generation of {SAMPLES} x {GENERATED}")
    print("beside  work             fair  spinning  as it is   in fair shares")
    command = [sys.executable, __file__, "--worker", "--preset", preset, "--seconds", str(seconds)]
    with ExitStack() as stack:
        workers = {
            mode: stack.enter_context(running(command, OMP_NUM_THREADS=str(threads), **changes))
            for mode, changes in MODES.items()
        }
        quiet = measure_beside(0, workers, rounds)
        for n_busy in beside:
            found = measure_beside(n_busy, workers, rounds) if n_busy else quiet
            for work in WORKS:
                share = max(1.0, (threads + n_busy) / cores)
                fair = share * min(quiet[work, mode] for mode in MODES)
                spinning, ours = (found[work, mode] for mode in MODES)
                print(
                    f"{n_busy:6}  {work:13} {fair:7.1f} {spinning:9.1f} {ours:9.1f}"
                    f"   {spinning / fair:6.2f} {ours / fair:6.2f}",
                    flush=True,
                )
    return None


if __name__ == "__main__":
    main()
