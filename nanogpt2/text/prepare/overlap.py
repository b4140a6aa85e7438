"""How much of the held-out splits stands in the training split, word for word, section by section.

A window of 100 characters may begin in one section and end in another: of those the parent process
sees to, which knows the ends of each.
"""

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from nanogpt2.base.system.files import rounded
from nanogpt2.base.system.stored import load
from nanogpt2.base.system.workers import Workers
from nanogpt2.text.copies.held_out import (
    LENGTH,
    LIMIT,
    HeldOut,
    Windows,
    combine,
    gather,
    level_for,
)
from nanogpt2.text.prepare.layout import SPLITS, Layout, Positions, Section, runs_of
from nanogpt2.text.scan.segments import read_segment

EDGE = LENGTH - 1  # characters of a section's text that windows share with the next section's


class Border:
    """Where the text of a split, which comes piece by piece, goes from one piece into the next."""

    def __init__(self) -> None:
        self.before = ""

    def cross(self, head: str, tail: str) -> tuple[str, str]:
        """Return what stands before and after the border to the next piece.

        `head` and `tail` are its first and last characters, 99 or all of them.
        """
        pair = self.before, head
        self.before = (self.before + tail)[-EDGE:] if len(tail) < EDGE else tail
        return pair


def gather_held_out(layout: Layout, folder: Path, workers: Workers) -> dict[str, HeldOut]:
    """Return the windows of the held-out splits, or of much text a sample of them."""
    sections = [section for section in layout.sections if layout.has_held_out(section)]
    function = partial(_gather_section, layout=layout.without_sections(), folder=folder)
    parts, levels = defaultdict[str, list[HeldOut]](list), levels_of(layout)
    borders = {name: Border() for name in SPLITS}
    for found in workers.each(function, sections):
        for split, (windows, head, tail) in found.items():
            crossing = gather(*borders[split].cross(head, tail), level=levels[split])
            parts[split] += [windows, crossing]
            if sum(len(part.hashes) for part in parts[split]) > LIMIT:
                parts[split] = [combine(parts[split])]
    return {name: combine(parts[name]) for name in SPLITS if name in parts}


def _gather_section(
    section: Section, *, layout: Layout, folder: Path
) -> dict[str, tuple[HeldOut, str, str]]:
    text = read_segment(folder, section.segment)
    runs = ((run.split, run.text(layout.separator)) for run in runs_of(section, text, layout))
    levels = levels_of(layout)
    return {
        split: (gather(whole, level=levels[split]), whole[:EDGE], whole[-EDGE:])
        for split, whole in runs
        if split != SPLITS[0]
    }


def levels_of(layout: Layout) -> dict[str, int]:
    """Return of each split the level at which its windows are gathered, by its size alone."""
    return {name: level_for(size) for name, size in zip(SPLITS, layout.sizes, strict=False)}


@lru_cache(1)
def read_windows(path: Path) -> Windows:
    """Return the held-out windows in a file, which a worker reads once."""
    windows: Windows = load(path, [Windows])
    return windows


class Shared:
    """Which held-out windows were met in the training split so far."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows
        self.border = Border()
        self.met = np.zeros(windows.size, np.bool_)

    def add(self, found: Positions, head: str, tail: str) -> None:
        """Note what was found in the next piece of training text, and what crosses its border."""
        self.met[found] = True
        self.met[self.windows.look_up(*self.border.cross(head, tail))] = True

    def shares(self, splits: Mapping[str, HeldOut]) -> dict[str, float]:
        """Return what share (0 .. 1) of each held-out split's windows was met."""
        return {
            name: rounded(self.windows.share(held_out, self.met))
            for name, held_out in splits.items()
        }
