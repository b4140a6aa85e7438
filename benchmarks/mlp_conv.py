"""What `mlp_conv` costs: steps of training, and decoding, with and without it, in turn.

    python benchmarks/mlp_conv.py
    python benchmarks/mlp_conv.py --preset nano -S batch_size 12 -S mlp_conv 3

The settings are those of params.yaml, or of a preset; tokens are random. A third side trains with
torch's own operator in the place of the compiled one. Each figure is the median over pairs.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import torch

from nanogpt2.config import yaml12
from nanogpt2.config.config import Config, get_config
from nanogpt2.decode.kernels.choose import prepare
from nanogpt2.kernels.checks.check import use_torchs
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.train.step import Stepper

ROOT = Path(__file__).parents[1]
WARM_UP = 3
TAPS = 4
Work = Callable[[], object]


def make_training(config: Config, *, torchs: bool = False) -> Work:
    """Return what does one step; with `torchs` the operator that mixes tokens is torch's."""
    model = GPT(config)
    stepper = Stepper(model, config)
    if torchs:
        use_torchs(stepper.operators, "mix_tokens")
    tokens = torch.randint(config.vocab_size, (1_000_000,), generator=torch.Generator())
    dataset, steps = (
        TokenDataset(tokens.numpy().astype("uint16"), config.block_size),
        iter(range(10**9)),
    )
    return lambda: stepper.step(dataset, next(steps)).figures[0].item()


@torch.inference_mode()
def make_decoding(config: Config, *, rows: int) -> Work:
    """Return what decodes half a block for so many rows."""
    decoder = prepare(GPT(config).eval())(rows=rows)
    tokens = torch.zeros(rows, dtype=torch.long)

    @torch.inference_mode()
    def decode() -> None:
        for position in range(config.block_size // 2):
            decoder.step(tokens, torch.full((rows,), position))

    return decode


def compare(name: str, sides: Mapping[str, Work], *, pairs: int, repeats: int) -> None:
    """Print the milliseconds of each side, and the others' ratio to the first."""

    def seconds(work: Work) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            work()
        return (time.perf_counter() - start) / repeats

    for work in sides.values():
        for _ in range(WARM_UP):
            work()
    rounds = []
    for number in range(pairs):
        order = list(sides)[:: 1 if number % 2 else -1]
        rounds.append({side: seconds(sides[side]) for side in order})
    first = next(iter(sides))
    for side in sides:
        median = statistics.median(each[side] for each in rounds)
        ratio = statistics.median(each[side] / each[first] for each in rounds)
        print(f"{name}, {side}: {1e3 * median:.2f} ms, {ratio:.3f} times {first}", flush=True)


@click.command()
@click.option("--preset", help="In the place of params.yaml.")
@click.option("--pairs", default=7, show_default=True)
@click.option("--repeats", default=5, show_default=True, help="Steps of each side in a pair.")
@click.option("-S", "settings", multiple=True, type=(str, str), help="A key and its value.")
def main(
    preset: str | None, pairs: int, repeats: int, settings: tuple[tuple[str, str], ...]
) -> None:
    """Print the time of a step of training, and of decoding one and 32 rows, on each side."""
    values: dict[str, Any] = {"device": "cpu", "mlp_conv": TAPS}
    values |= {key: yaml12.parse(f"{key}: {value}", name="-S")[key] for key, value in settings}
    source = preset or ROOT / "params.yaml"
    mixed = get_config(source, **values)
    plain = get_config(source, **values | {"mlp_conv": 0})
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; mlp_conv {mixed.mlp_conv}"
    )
    sides = {
        "without": make_training(plain),
        "with": make_training(mixed),
        "with torch's operator": make_training(mixed, torchs=True),
    }
    compare("a step", sides, pairs=pairs, repeats=repeats)
    for rows in (1, 32):
        both = {"without": plain, "with": mixed}
        decoding = {side: make_decoding(config, rows=rows) for side, config in both.items()}
        compare(f"half a block for {rows} rows", decoding, pairs=3 * pairs, repeats=1)


if __name__ == "__main__":
    main()
