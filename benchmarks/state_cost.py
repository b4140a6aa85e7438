"""What saving the state of an unfinished run costs, as a share of training time.

    python benchmarks/state_cost.py --preset base --device cuda

Times steps and saves of a preset on random tokens, the best weights included in the state, and
prints the share at the preset's checkpoint_interval.
"""

import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from nanogpt2.config.config import get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.train.resume import StateFiles
from nanogpt2.train.trainer import Trainer


def time_steps(trainer: Trainer, dataset: TokenDataset, *, warm_up: int, steps: int) -> float:
    """Return the seconds of one step."""
    for step in range(warm_up):
        trainer.stepper.step(dataset, step)
    trainer.stepper.synchronize()
    start = time.perf_counter()
    for step in range(warm_up, warm_up + steps):
        trainer.stepper.step(dataset, step)
    trainer.stepper.synchronize()
    return (time.perf_counter() - start) / steps


def time_saves(trainer: Trainer, states: StateFiles, *, saves: int) -> list[float]:
    """Return the seconds of each of `saves` saves of what the trainer would save."""
    weights = trainer.model.state_dict()
    best = {name: value.detach().clone() for name, value in weights.items()}
    content = {"record": {"best_weights": best}, "stepper": trainer.stepper.state_dict()}
    seconds = []
    for number in range(saves):
        start = time.perf_counter()
        states.save(number, content)
        seconds.append(time.perf_counter() - start)
    return seconds


@click.command()
@click.option("--preset", default="base", show_default=True)
@click.option("--device", default="auto", show_default=True)
@click.option("--steps", default=20, show_default=True)
@click.option("--saves", default=3, show_default=True)
def main(preset: str, device: str, steps: int, saves: int) -> None:
    """Print the time of a step and of a save, and the share of the saves."""
    config = get_config(preset, device=device, deterministic=False)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, 2_000_000).astype(np.uint16)
    trainer = Trainer(GPT(config), config)
    dataset = TokenDataset(tokens, config.block_size)
    step = time_steps(trainer, dataset, warm_up=5, steps=steps)
    with tempfile.TemporaryDirectory() as folder:
        states = StateFiles(Path(folder))
        save = statistics.median(time_saves(trainer, states, saves=saves))
        size = states.paths()[-1].stat().st_size
    share = save / (save + config.checkpoint_interval * step)
    print(
        f"{preset} on {trainer.stepper.device.type}: a step {step:.4f} s, a save {save:.3f} s"
        f" ({size / 1e9:.2f} GB): {share:.2%} of the time at every"
        f" {config.checkpoint_interval} steps"
    )


if __name__ == "__main__":
    main()
