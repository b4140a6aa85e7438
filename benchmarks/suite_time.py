"""How long the tests take, by a clock that runs as fast as the machine does in this hour.

python benchmarks/suite_time.py [COMMAND ...]    # make test, where none is given

Prints the wall and processor seconds of a command with all that it starts, also what outlives its
parent; and the same in units of a fixed computation, timed before and after on one core.
"""

import ctypes
import os
import resource
import statistics
import subprocess
import sys
import time
from contextlib import suppress

SET_CHILD_SUBREAPER = 36  # of linux/prctl.h: what loses its parent becomes our child


def unit() -> float:
    """Return the processor seconds of a fixed computation, the median of five."""
    seconds = []
    for _ in range(5):
        start = time.process_time()
        sum(number * number % 7 for number in range(5_000_000))
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


def main(command: list[str]) -> int:
    assert sys.platform == "linux"
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before, start = unit(), time.perf_counter()
    status = subprocess.run(command, check=False).returncode
    wall = time.perf_counter() - start
    with suppress(ChildProcessError):
        while True:
            os.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor, one = used.ru_utime + used.ru_stime, (before + unit()) / 2
    print(f"{wall:.0f} s, {processor:.0f} processor seconds; a unit takes {one:.3f} s:")
    print(f"{wall / one:.0f} units, {processor / one:.0f} processor units")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["make", "test"]))
