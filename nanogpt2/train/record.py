"""What a training run found out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from nanogpt2.base.system import files
from nanogpt2.base.system.files import rounded
from nanogpt2.config.config import Config
from nanogpt2.model.checkpoint import save_trained
from nanogpt2.train.finetune.start import Start

Save = Callable[["TrainingRecord", dict[str, dict[str, Tensor]]], None]


@dataclass
class TrainingRecord:
    """A row for each evaluation, and the best of them.

    Losses are in nats per token; `best_weights` are those of the lowest validation loss.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_iter: int = 0
    best_val_loss: float = float("inf")
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    def evaluation_is_due(self, config: Config) -> bool:
        """Return whether the losses after `step` are wanted, and not there yet."""
        done = self.history[-1]["iter"] if self.history else 0
        at_end = self.step == config.max_iters
        return self.step != done and (at_end or self.step % config.eval_interval == 0)

    def is_over(self, config: Config) -> bool:
        """Return whether all steps are done, or patience is at its end."""
        since_best = sum(row["iter"] > self.best_iter for row in self.history)
        out_of_patience = bool(config.patience) and since_best >= config.patience
        return self.step == config.max_iters or out_of_patience

    def add(self, *, train_loss: float, val_loss: float, learning_rate: float) -> bool:
        """Add the row of the evaluation after `step`; return whether it is the best so far."""
        self.history.append(
            {
                "iter": self.step,
                "train_loss": rounded(train_loss),
                "val_loss": rounded(val_loss),
                "learning_rate": float(f"{learning_rate:.6g}"),
            }
        )
        best = val_loss < self.best_val_loss
        if best:
            self.best_iter, self.best_val_loss = self.step, val_loss
        return best

    def keep_best(self, weights: Mapping[str, Tensor]) -> None:
        """Keep a copy of `weights` as the best."""
        self.best_weights = {name: value.detach().clone() for name, value in weights.items()}

    def describe(self, folder: str) -> str:
        """Return the best loss and the last in a line, and their files in `folder`."""
        best = Path(folder, "best_model.pt")
        return (
            f"best val loss {self.best_val_loss:.4f} at iteration {self.best_iter}: {best};"
            f" the last, at {self.history[-1]['iter']:.0f}, {self.history[-1]['val_loss']:.4f}"
        )

    def metrics(self) -> dict[str, float]:
        """Return the figures of the run: the last evaluation, and the best one."""
        last = self.history[-1]
        return {
            "iter": self.step,
            "train_loss": last["train_loss"],
            "val_loss": last["val_loss"],
            "best_iter": self.best_iter,
            "best_val_loss": rounded(self.best_val_loss),
        }

    def write(self, metrics: str | Path, curve: str | Path) -> None:
        """Write the figures as JSON to `metrics` and the history as CSV to `curve`."""
        files.write_csv(curve, self.history)
        files.write_json(metrics, self.metrics())


def saving(
    start: Start,
    data: Path,
    *,
    metrics: Path,
    curve: Path,
    say: Callable[[str], None] = lambda line: None,
) -> Save:
    """Return what saves a run from `start` on the prepared `data`: weights, and figures.

    Model files, in checkpoint_dir, tell where they come from. `say` gets the notes of the start
    now, and the line that tells what was best once it is known. DataError now where one of the
    files cannot be written.
    """
    files.check_writable(metrics, curve, Path(start.config.checkpoint_dir, "model.pt"))
    for note in start.notes:
        say(note)

    def save(record: TrainingRecord, weights: dict[str, dict[str, Tensor]]) -> None:
        save_trained(weights, start.config, data, {**start.origin, **record.metrics()})
        record.write(metrics, curve)
        say(record.describe(start.config.checkpoint_dir))

    return save
