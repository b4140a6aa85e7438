"""Repeated lines: counted exactly where there is room, and estimated where there is not."""

import random
from collections import Counter

import numpy as np
import pytest

from nanogpt2.text.survey.lines import LineTable
from nanogpt2.text.survey.splits import Splits

PADDING = "this line is at least forty characters long"
TRAIN = Splits("contiguous", np.array([0]), np.array([0], dtype=np.int8), 1)


def make_lines(count: int, different: int) -> list[str]:
    """Return lines of which some stand often and many once."""
    draw = random.Random(0)
    return [f"{PADDING} {int(draw.paretovariate(0.5)) % different}" for _ in range(count)]


def fill(table: LineTable, lines: list[str]) -> None:
    start = 0
    for at in range(0, len(lines), 100):
        text = "".join(line + "\n" for line in lines[at : at + 100])
        table.add(text, start)
        start += len(text)


def test_what_stands_again_is_counted() -> None:
    lines = make_lines(5000, 10**9)
    counts = Counter(lines)
    table = LineTable(batch=700)
    fill(table, lines)
    found = table.summarise(TRAIN)
    again = {line: count - 1 for line, count in counts.items()}
    assert found.lines == sum(again.values())
    assert found.characters == sum(len(line) * count for line, count in again.items())
    assert not found.is_estimate
    text = "".join(line + "\n" for line in lines)
    for line in found.commonest:
        words = text[line.first : line.first + line.length]
        assert text.index(words + "\n") == line.first
        assert text.rindex(words + "\n") == line.last
        assert counts[words] == line.count


def test_in_little_memory_shares_are_estimated_and_the_commonest_are_found() -> None:
    lines = make_lines(60_000, 10**9)
    counts = Counter(lines)
    table = LineTable(capacity=1000, batch=500)
    fill(table, lines)
    found = table.summarise(TRAIN)
    assert found.is_estimate
    assert found.lines == pytest.approx(len(lines) - len(counts), rel=0.2)
    best = counts.most_common(1)[0]
    assert found.commonest[0].count == best[1]


def test_lines_that_held_out_text_shares_with_train_are_told() -> None:
    shared, own = f"{PADDING} shared\n", f"{PADDING} own\n"
    table = LineTable()
    table.add(shared + own + own + shared + own.upper() * 2, 0)
    train = len(shared + own * 2)
    splits = Splits("contiguous", np.array([0, train]), np.array([0, 1], dtype=np.int8), 999)
    found = table.summarise(splits)
    assert found.lines == 3
    assert found.across == {"val": 1, "test": 0}
