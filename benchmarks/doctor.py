"""How quickly cleaners and the data doctor read a text, and in how much memory.

    python benchmarks/doctor.py
    python benchmarks/doctor.py --megabytes 1000

The text is the built-in one again and again, with common words changed. A cleaner is given blocks
of 1 MB in which it finds nothing, beside a copy of the same bytes by Python; then the doctor
examines the text as its command does, without near copies and with them.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from nanogpt2.text.cleaning.cleaner import Cleaner
from nanogpt2.text.cleaning.controls import find_controls
from nanogpt2.text.cleaning.licences import Licences
from nanogpt2.text.cleaning.lines import line_keys
from nanogpt2.text.cleaning.mojibake import find_mojibake
from nanogpt2.text.reading.shakespeare import shakespeare_text

ROUNDS = 7
BLOCK = 1_000_000
CLEANERS: dict[str, Callable[[str], object]] = {
    "encoding (mojibake)": Cleaner(find_mojibake).push,
    "control_characters": Cleaner(find_controls).push,
    "licences": Licences().push,
    "repeated_lines (keys)": line_keys,
}


def speed(function: Callable[[str], object], blocks: list[str]) -> float:
    """Return the median of MB a second of CPU time."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for block in blocks:
            function(block)
        seconds.append(time.process_time() - start)
    return sum(len(block.encode()) for block in blocks) / 1e6 / statistics.median(seconds)


def time_cleaners() -> None:
    """Print how quickly each cleaner reads ASCII, and the same with one letter beyond it."""
    text = shakespeare_text()
    ascii_blocks = [text[at : at + BLOCK] for at in range(0, 4 * BLOCK, BLOCK)]
    other_blocks = ["é" + block for block in ascii_blocks]
    for name, function in {**CLEANERS, "a copy in UTF-8": str.encode}.items():
        shown = " ".join(f"{speed(function, each):10,.0f}" for each in (ascii_blocks, other_blocks))
        print(f"{name:24} {shown} MB/s", flush=True)


def write_text(path: Path, megabytes: int) -> None:
    """Write a text of about this size in which few lines are copies of others as they stand."""
    text = shakespeare_text()
    with path.open("w", encoding="utf-8") as file:
        for number in range(1 + megabytes * 1_000_000 // len(text)):
            changed = text.replace("the", f"th{number}").replace("and", f"an{number * 7 % 31}")
            file.write(changed[: max(0, megabytes * 1_000_000 - file.tell())])


def time_doctor(path: Path, params: Path) -> None:
    """Print how long the command takes for a text, and the most memory that it had."""
    command = [sys.executable, "-m", "nanogpt2", "data", str(path), "--params", str(params)]
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    size = path.stat().st_size / 1e6
    print(f"{params.stem:24} {seconds:10.1f} s {size / seconds:10.0f} MB/s {peak:10.0f} MB")


def main() -> None:
    """Time all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=100, help="of the text that is examined")
    megabytes = parser.parse_args().megabytes
    time_cleaners()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "text.txt")
        write_text(path, megabytes)
        for name, find in (("without_near_copies", "false"), ("with_near_copies", "true")):
            params = Path(folder, f"{name}.yaml")
            params.write_text(f"find_copies: {find}\n", encoding="utf-8")
            time_doctor(path, params)


if __name__ == "__main__":
    main()
