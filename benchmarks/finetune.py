"""Fine-tuning beside training from scratch: how many steps it takes to the loss from scratch.

    python benchmarks/finetune.py --base checkpoints/best_model.pt --text other.txt --bytes 100000

Training from scratch has the settings of params.yaml; the others start from `--base`, keep its
tokenizer where it knows the text's characters, and have a third of the steps. Each evaluates on the
last tenth of the text. The table has the loss before the first step, the lowest, and the step at
which the lowest loss from scratch was reached.
"""

import argparse
import io
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanogpt2 import load_pretrained, start_from
from nanogpt2.config.config import Config, get_config
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.tokens.tokenizer import CharTokenizer
from nanogpt2.train.trainer import Trainer

ADAMW: dict[str, Any] = {"optimizer": "adamw", "warmup_iters": 20}
WAYS: dict[str, dict[str, Any]] = {
    "full, Muon as from scratch": {"warmup_iters": 20},
    "full, Muon at a quarter of the rates": {
        "warmup_iters": 20,
        "learning_rate": 2e-3,
        "muon_learning_rate": 5e-3,
    },
    "full, AdamW at 3e-4": ADAMW | {"learning_rate": 3e-4},
    "full, AdamW at 1e-3": ADAMW | {"learning_rate": 1e-3},
    "full, AdamW at 3e-3": ADAMW | {"learning_rate": 3e-3},
    "full, AdamW at 3e-3, layer_decay 0.8": ADAMW | {"learning_rate": 3e-3, "layer_decay": 0.8},
    "LoRA of rank 8 at 3e-3": ADAMW | {"learning_rate": 3e-3, "lora_rank": 8},
    "LoRA of rank 8 at 1e-2": ADAMW | {"learning_rate": 1e-2, "lora_rank": 8},
    "LoRA of rank 32 at 1e-2": ADAMW | {"learning_rate": 1e-2, "lora_rank": 32},
}


@dataclass(frozen=True)
class Run:
    """The losses of one run on the validation part."""

    start: float  # before the first step
    curve: dict[int, float]  # after each evaluation, by step

    @property
    def best(self) -> float:
        """The lowest loss."""
        return min(self.curve.values())

    def reaches(self, loss: float) -> int | None:
        """Return the first step at which the loss was no higher, None where it never was."""
        return next((step for step, found in self.curve.items() if found <= loss), None)


def train(model: GPT, config: Config, data: tuple[CharDataset, CharDataset]) -> Run:
    """Train `model` on the first dataset and return its losses on the second."""
    shown = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(shown):
        config = get_config(config, checkpoint_dir=folder)
        record = Trainer(model, config, resume_root=Path(folder, "resume")).train(*data)
    start = float(shown.getvalue().split("val loss ")[1].split()[0])
    return Run(start, {int(row["iter"]): row["val_loss"] for row in record.history})


def compare(base: Path, text: str, config: Config) -> None:
    """Train from scratch and in each way from `base`, and print a table."""
    start = load_pretrained(base)
    known = start.tokenizer
    own = CharTokenizer.train(text)
    if isinstance(known, CharTokenizer) and set(own.characters) <= set(known.characters):
        own = known
    edge = len(text) * 9 // 10
    data = (
        CharDataset(text[:edge], config.block_size, own),
        CharDataset(text[edge:], config.block_size, own),
    )
    scratch = train(GPT(config), config, data)
    print(f"\n{len(text):,} characters, {own.size} tokens, seed {config.seed}\n")
    print("| | steps | loss at first | lowest | at the loss from scratch |\n|---|---|---|---|---|")
    print(f"| from scratch | {config.max_iters} | {scratch.start:.4f} | {scratch.best:.4f} | |")
    for name, changes in WAYS.items():
        if changes.get("lora_rank") and own is not known:
            continue  # it leaves the embedding as it is
        tuned = get_config(
            config, **changes, max_iters=config.max_iters // 3, save_checkpoint=False
        )
        made = start_from(start, tuned, own)
        run = train(made.model, made.config, data)
        at = run.reaches(scratch.best)
        reached = "never" if at is None else f"{at} ({at / config.max_iters:.0%})"
        print(f"| {name} | {tuned.max_iters} | {run.start:.4f} | {run.best:.4f} | {reached} |")
        sys.stdout.flush()


def main() -> None:
    """Print a table for each size of text."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--base", type=Path, required=True, help="a model file or folder")
    parser.add_argument("--text", type=Path, required=True, help="a text of another author")
    parser.add_argument("--bytes", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--steps", type=int, default=1600, help="from scratch")
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8")
    for size in options.bytes:
        for seed in options.seeds:
            config = get_config(
                "params.yaml",
                seed=seed,
                device=options.device,
                max_iters=options.steps,
                eval_interval=25,
                eval_iters=20,
                save_checkpoint=False,
            )
            compare(options.base, text[:size], config)


if __name__ == "__main__":
    main()
