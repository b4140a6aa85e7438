"""Curves in the terminal, in Braille dots: validation and training loss of one run."""

import shutil
from typing import Any

from nanogpt2.base.system.extras import import_extra
from nanogpt2.experiments.compare.collect import read_workspace
from nanogpt2.experiments.compare.live import list_running
from nanogpt2.experiments.compare.runs import Run

COLUMNS, LINES = 100, 24  # at most
LABELS = 26  # columns for what stands left and right of the dots
DIGITS = 4


def find_latest() -> Run | None:
    """Return the training under way, the one with most steps; else the run in the workspace."""
    running = list_running()
    if running:
        return max(running, key=lambda run: int(run.progress["iter"]))
    here = read_workspace()
    return here if here.curve else None


def draw_run(run: Run) -> str:
    """Return the curves of `run`, and where it is. ExtraError where plotille is missing."""
    head = _describe(run)
    if len(run.curve.get("iter", ())) < 2:
        return f"{head}; a curve needs two evaluations"
    size = shutil.get_terminal_size()
    figure = import_extra("plotille", extra="report").Figure()
    figure.width = max(min(size.columns, COLUMNS) - LABELS, 20)
    figure.height = max(min(size.lines, LINES) - 10, 8)
    figure.color_mode = "names"
    figure.with_colors = False
    figure.origin = False
    figure.x_label, figure.y_label = "step", "loss"
    figure.y_ticks_fkt = _tick
    figure.x_ticks_fkt = _whole_tick
    steps = run.curve["iter"]
    for name, marker in (("val_loss", "v"), ("train_loss", "t")):
        if name in run.curve:
            losses = run.curve[name]
            figure.plot(steps, losses, label=name.replace("_", " "))
            figure.text(steps[-1:], losses[-1:], [marker])
    drawn = figure.show(legend=False)
    last = {name: column[-1] for name, column in run.curve.items() if name != "iter"}
    words = ", ".join(
        f"{mark} {name.replace('_', ' ')} {last[name]:.{DIGITS}f}"
        for name, mark in (("val_loss", "v"), ("train_loss", "t"))
        if name in last
    )
    return f"{head}\n{drawn}\n{words} at step {steps[-1]:,.0f}"


def _describe(run: Run) -> str:
    if not run.progress:
        return run.name
    at, last = run.progress["iter"], run.progress["max_iters"]
    return f"{run.name}: step {at:,} of {last:,}, {run.progress['tokens_per_second']:,.0f} tokens/s"


def _tick(least: float, greatest: float) -> str:
    del greatest
    return f"{least:.3f}"


def _whole_tick(least: Any, greatest: Any) -> str:
    del greatest
    return f"{least:,.0f}"
