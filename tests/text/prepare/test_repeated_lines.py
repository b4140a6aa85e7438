"""Repeated lines: all but the first of equal ones are found, in bounded memory."""

import random
from pathlib import Path

from nanogpt2.base.system.workers import Workers
from nanogpt2.config.groups import CleanConfig
from nanogpt2.text.prepare.repeated_lines import search_lines
from nanogpt2.text.scan.segments import SegmentWriter


def test_all_but_the_first_of_equal_lines_are_found_in_order(tmp_path: Path) -> None:
    draw = random.Random(0)
    lines = [f"Line {draw.randrange(300)} of many that are long: é, 中 or 🙂" for _ in range(2000)]
    lines[5::50] = ["short"] * len(lines[5::50])
    lines[7] = lines[9] = "x" * 70_000  # longer than an index holds
    expected, seen, start = [], set(), 0
    for line in lines:
        if line in seen and 40 <= len(line) < 65_535:
            expected.append([start, start + len(line) + 1])
        seen.add(line)
        start += len(line) + 1
    writer = SegmentWriter(tmp_path, 0, 5000, CleanConfig())
    writer.begin(0)
    for at in range(0, 2000, 90):
        writer.add("".join(line + "\n" for line in lines[at : at + 90]))
    found = search_lines(writer.finish(), tmp_path, Workers(1))
    assert found.tolist() == expected
