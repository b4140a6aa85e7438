"""Preparation of a large text: MB/s, memory and disk, beside nanoGPT's script and tiktoken.

    python benchmarks/prepare.py --megabytes 100 --nanogpt PATH
    python benchmarks/prepare.py --megabytes 1000 --tokenizer char --copies
    python benchmarks/prepare.py --megabytes 50 --kills 20

The text is the built-in corpus again and again, with one changed character every 90. Each way is a
process of its own, so that imports count. Memory is the largest sum of all its processes' (RSS:
what they share counts in each), in a run before those that are measured, which leaves Python's
bytecode, as users have it. With `--repeats 0` that run is the only one, and has the time.
`--kills` prepares the text once, then again and again, killed at a random moment each time, and
compares the bytes.
"""

import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import project
import psutil
import yaml

from nanogpt2.text.reading.shakespeare import shakespeare_text

SIZES = {"char": 256, "byte": 256, "bpe": 4096, "gpt2": 50257}
PATIENCE = 0.02  # seconds between two looks at memory
LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
SAID = "said.txt"  # what a command says, in its folder
EVERY = 90  # characters from one change to the next

TIKTOKEN = """
import os, sys, numpy
os.environ["TIKTOKEN_CACHE_DIR"] = ""
from nanogpt2.tokens.bpe.gpt2 import find_file
from nanogpt2.tokens.bpe.words import WORDS
from tiktoken import Encoding
from tiktoken.load import data_gym_to_mergeable_bpe_ranks
files = [str(find_file(name)) for name in ("vocab.bpe", "encoder.json")]
ranks = data_gym_to_mergeable_bpe_ranks(*files)
encoding = Encoding("gpt2", pat_str=WORDS, mergeable_ranks=ranks, special_tokens={})
text = open(sys.argv[1], encoding="utf-8").read()
cut = int(len(text) * 0.9)
for name, part in (("train", text[:cut]), ("val", text[cut:])):
    tokens = numpy.array(encoding.encode_ordinary(part), dtype=numpy.uint16)
    tokens.tofile(f"{sys.argv[2]}/{name}.bin")
"""


def write_corpus(path: Path, megabytes: int) -> None:
    """Write the plays again and again, each time with other changes."""
    text = np.frombuffer(shakespeare_text().encode("ascii"), np.uint8)
    with path.open("wb") as file:
        for seed in range(1 + megabytes * 1_000_000 // len(text)):
            draw = np.random.default_rng(seed)
            changed = text.copy()
            at = np.arange(0, len(text) - EVERY, EVERY)
            at = at + draw.integers(EVERY, size=len(at))
            at = at[np.isin(changed[at], LETTERS)]
            changed[at] = draw.choice(LETTERS, size=len(at))
            file.write(changed.tobytes())
        file.truncate(megabytes * 1_000_000)


def environment() -> dict[str, str]:
    """Return that of a user who imports the library from here."""
    found = project.environment()
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    return found


def measure(command: list[str], folder: Path) -> float:
    """Run a command; return its seconds."""
    start = time.perf_counter()
    _end(_begin(command, folder), folder)
    return time.perf_counter() - start


def watch(command: list[str], folder: Path) -> tuple[int, float]:
    """Run a command; return the most bytes that its processes held together, and its seconds.

    To look takes time from two busy cores.
    """
    start = time.perf_counter()
    most, process = 0, _begin(command, folder)
    while process.poll() is None:
        most = max(most, sum(map(_held, [process, *_children(process)])))
        time.sleep(PATIENCE)
    _end(process, folder)
    return most, time.perf_counter() - start


def _begin(command: list[str], folder: Path) -> psutil.Popen:
    out = subprocess.DEVNULL
    with (folder / SAID).open("wb") as said:
        return psutil.Popen(command, cwd=folder, env=environment(), stdout=out, stderr=said)


def _end(process: psutil.Popen, folder: Path) -> None:
    """Wait for a command; the benchmark ends with what it said where it failed."""
    if process.wait():
        raise click.ClickException((folder / SAID).read_text(encoding="utf-8")[-500:])


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _held(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def prepare_command(
    folder: Path, corpus: Path, tokenizer: str, copies: bool, workers: int
) -> list[str]:
    """Return the command of the stage prepare on a corpus, once params.yaml is in the folder."""
    params = {"corpus": str(corpus), "tokenizer": tokenizer, "vocab_size": SIZES[tokenizer]}
    text = yaml.safe_dump({**params, "find_copies": copies})
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    options = ["--out", str(folder / "prepared"), "--workers", str(workers)]
    return [sys.executable, "-m", "stages.prepare", *options]


def compare(
    corpus: Path, folder: Path, tokenizers: list[str], copies: bool, workers: int, repeats: int
) -> Iterator[str]:
    """Yield a line for each way to prepare the corpus."""
    size = corpus.stat().st_size
    for tokenizer in tokenizers:
        command = prepare_command(folder, corpus, tokenizer, copies, workers)
        name = f"{tokenizer}{', copies looked for' * copies}"
        yield describe(name, size, command, folder, repeats)


def describe(name: str, size: int, command: list[str], folder: Path, repeats: int) -> str:
    """Return a command's memory, and the median of so many runs, in a line."""
    most, watched = watch(command, folder)
    seconds = statistics.median([measure(command, folder) for _ in range(repeats)] or [watched])
    return (
        f"{name:28} {seconds:8.2f} s {size / 1e6 / seconds:8.1f} MB/s {most / 1e6:8.0f} MB memory"
    )


def others(corpus: Path, folder: Path, nanogpt: Path | None, repeats: int) -> Iterator[str]:
    """Yield a line for nanoGPT's character script, where it is, and one for tiktoken."""
    size = corpus.stat().st_size
    if nanogpt is not None:
        there = folder / "nanogpt"
        there.mkdir(exist_ok=True)
        shutil.copy(nanogpt / "data/shakespeare_char/prepare.py", there)
        (there / "input.txt").unlink(missing_ok=True)
        (there / "input.txt").symlink_to(corpus)
        command = [sys.executable, "prepare.py"]
        yield describe("nanoGPT, characters", size, command, there, repeats)
    command = [sys.executable, "-c", TIKTOKEN, str(corpus), str(folder)]
    yield describe("tiktoken, gpt2, whole text", size, command, folder, repeats)


def kill(corpus: Path, folder: Path, tokenizer: str, kills: int, workers: int) -> str:
    """Kill preparations at random moments, start again; return what became of the bytes."""
    command = prepare_command(folder, corpus, tokenizer, True, workers)
    out, draw = folder / "prepared", random.Random(1)
    seconds = measure(command, folder)
    expected = {path.name: path.read_bytes() for path in out.iterdir()}
    for number in range(kills):
        shutil.rmtree(out)
        process = _begin(command, folder)
        time.sleep(draw.uniform(0, seconds))
        process.send_signal(signal.SIGKILL)
        process.wait()
        measure(command, folder)
        found = {path.name: path.read_bytes() for path in out.iterdir()}
        left = [path.name for path in folder.iterdir() if path.name.startswith(".prepared")]
        if found != expected or left:
            return f"kill {number + 1}: other bytes, or left behind: {left}"
    return f"killed {kills} times and started again: the same bytes each time, nothing left behind"


@click.command()
@click.option("--megabytes", type=int, default=100)
@click.option("--tokenizer", "tokenizers", multiple=True, type=click.Choice(list(SIZES)))
@click.option("--copies/--no-copies", default=False, help="Look for copies too.")
@click.option("--workers", type=int, default=2)
@click.option("--repeats", type=int, default=3)
@click.option("--nanogpt", type=click.Path(path_type=Path, exists=True))
@click.option("--kills", type=int, default=0)
@click.option(
    "--folder", type=click.Path(path_type=Path), help="Where to work; default: temporary."
)
def main(
    megabytes: int,
    tokenizers: tuple[str, ...],
    copies: bool,
    workers: int,
    repeats: int,
    nanogpt: Path | None,
    kills: int,
    folder: Path | None,
) -> None:
    """Print seconds, MB/s and memory of each way."""
    chosen = list(tokenizers or SIZES)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        there = Path(temporary)
        corpus = there / "corpus.txt"
        write_corpus(corpus, megabytes)
        if kills:
            click.echo(kill(corpus, there, chosen[0], kills, workers))
            return
        for line in compare(corpus, there, chosen, copies, workers, repeats):
            click.echo(line)
        for line in others(corpus, there, nanogpt, repeats) if nanogpt or not tokenizers else ():
            click.echo(line)


if __name__ == "__main__":
    main()
