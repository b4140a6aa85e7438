"""The run as others may watch it: logs/live.json, written anew at each evaluation and now and then.

`nanogpt2.experiments.compare` reads it. No output of a stage: it differs from run to run.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EVERY = 2.0  # seconds at least between two states, evaluations apart


class LiveFile:
    """Writes where a run is to `path`, until it is over; where that fails it gives up silently."""

    def __init__(self, path: Path, params: Mapping[str, Any], *, max_iters: int) -> None:
        import psutil

        self.path: Path | None = path
        self.state: dict[str, Any] = {
            "process": [os.getpid(), psutil.Process().create_time()],
            "max_iters": max_iters,
            "params": dict(params),
            "history": [],
        }
        self.began = self.written = time.perf_counter()
        self.first = 0

    def begin(self, step: int, *, tokens_per_step: int) -> None:
        """Begin at `step`; a run that goes on keeps the rows that it wrote before."""
        if step:
            self.state["history"] = self._rows_before(step)
        self.first, self.tokens_per_step = step, tokens_per_step
        self.began = time.perf_counter()
        self.write(step)

    def _rows_before(self, step: int) -> list[dict[str, float]]:
        try:
            before = json.loads(self.path.read_bytes()) if self.path else {}
            same = before["params"] == json.loads(json.dumps(self.state["params"], default=str))
            return [row for row in before["history"] if same and row["iter"] <= step]
        except (OSError, ValueError, KeyError, TypeError):  # none, or of another version
            return []

    def passed(self, step: int) -> None:
        """Note `step`; it is written once EVERY seconds."""
        if time.perf_counter() - self.written > EVERY:
            self.write(step)

    def evaluated(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write all rows so far."""
        self.state["history"] = [dict(row) for row in history]
        self.write(int(history[-1]["iter"]))

    def end(self) -> None:
        """Write that the run is over."""
        self.state["process"] = None
        self.write(self.state.get("iter", 0))

    def write(self, step: int) -> None:
        """Replace the file; a reader sees the old state or the new one."""
        if self.path is None:
            return
        self.written = time.perf_counter()
        seconds = max(self.written - self.began, 1e-9)
        self.state["iter"] = step
        self.state["tokens_per_second"] = (step - self.first) * self.tokens_per_step / seconds
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(self.state, default=str), encoding="utf-8")
            aside.replace(self.path)  # not synced: a power cut ends what it is about
        except OSError:
            self.path = None
