"""Where a training is can be read while it runs, and that it is over once it has ended."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nanogpt2.config.config import Config
from nanogpt2.experiments.compare.live import list_running
from nanogpt2.model.gpt import GPT
from nanogpt2.report.live import LiveFile
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.train.trainer import Trainer

LIVE = Path("logs/live.json")


def train(config: Config, text: str, **options: Any) -> None:
    dataset = CharDataset(text, config.block_size)
    trainer = Trainer(GPT(config), config, log_file="logs/train.log", **options)
    trainer.train(dataset, dataset)


def test_each_evaluation_can_be_read_while_it_runs_and_none_once_it_is_over(
    tiny: Config, text: str
) -> None:
    seen: list[tuple[str, list[float], int]] = []

    def look(history: Sequence[Mapping[str, float]]) -> None:
        (run,) = list_running()
        assert run.curve["val_loss"] == [row["val_loss"] for row in history]
        assert run.params["learning_rate"] == tiny.learning_rate
        seen.append((run.kind, list(run.curve["iter"]), run.progress["iter"]))

    train(tiny, text, on_evaluation=look)
    assert seen == [("running", [3], 3), ("running", [3, 6], 6)]
    assert list_running() == []
    assert len(json.loads(LIVE.read_text(encoding="utf-8"))["history"]) == 2


def begin(step: int, **params: int) -> LiveFile:
    live = LiveFile(LIVE, params, max_iters=10)
    live.begin(step, tokens_per_step=1)
    return live


def losses() -> list[float]:
    (run,) = list_running()
    return list(run.curve.get("val_loss", ()))


def test_a_run_that_goes_on_has_the_evaluations_before_it_was_cut_off() -> None:
    rows = [{"iter": at, "train_loss": 3.0, "val_loss": 4.0 - at} for at in (1, 2, 3)]
    begin(0, seed=1).evaluated(rows)
    begin(2, seed=1)
    assert losses() == [3.0, 2.0]
    begin(2, seed=2)
    assert losses() == []
    begin(0, seed=1)
    assert losses() == []


def test_a_folder_that_cannot_be_written_ends_no_run(tiny: Config, text: str) -> None:
    Path("logs").write_text("a file", encoding="utf-8")
    train(tiny, text)
