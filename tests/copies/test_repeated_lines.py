"""Repeated lines: all but the first of equal ones are found, in bounded memory."""

import random
from pathlib import Path

import numpy as np

from nanogpt2.copies.index import Index
from nanogpt2.copies.lines import add_lines, find_repeated_lines


def test_all_but_the_first_of_equal_lines_are_found_in_order(tmp_path: Path) -> None:
    draw = random.Random(0)
    lines = [f"Line {draw.randrange(300)} of many: é, 中 or 🙂" for _ in range(2000)]
    lines[5::50] = ["short"] * len(lines[5::50])
    lines[7] = lines[9] = "x" * 70_000  # longer than an index holds
    expected, seen, start = [], set(), 0
    for line in lines:
        if line in seen and 20 <= len(line) < 65_535:
            expected.append([start, start + len(line)])
        seen.add(line)
        start += len(line) + 1
    with Index(tmp_path / "index") as index:
        start = 0
        for at in range(0, 2000, 90):
            text = "".join(line + "\n" for line in lines[at : at + 90])
            add_lines(index, text, start=start, least=20)
            start += len(text)
        found = np.concatenate(list(find_repeated_lines(index)))
    assert found.tolist() == expected
