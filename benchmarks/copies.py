"""Near copies: how many planted ones are found, how many others too, and what it costs.

    python benchmarks/copies.py planted --passages 4000
    python benchmarks/copies.py repeated --megabytes 1000
    python benchmarks/copies.py verbatim

`planted` hides passages of the built-in corpus in other passages of it, with changes of several
kinds, some of them alike (Jaccard 0.8 and more), some not (0.6 and less). `repeated` repeats the
corpus with one changed character every 90. `verbatim` times what looks for exact copies.
"""

import resource
import tempfile
import textwrap
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np

from nanogpt2.text.copies.constants import REACH
from nanogpt2.text.copies.held_out import Windows, gather
from nanogpt2.text.copies.index import Index, add_samples
from nanogpt2.text.copies.near import NearCopies, find_near_copies
from nanogpt2.text.copies.overlap import search_pieces
from nanogpt2.text.copies.similarity import similarity
from nanogpt2.text.copies.windows import SPACING, character_codes, sample, spacing_for
from nanogpt2.text.prepare.near_copies import pieces_of
from nanogpt2.text.reading.shakespeare import shakespeare_text

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECE = 1 << 22  # characters sampled together
Planted = tuple[str, int, int, int, float]  # kind, split, start, end, similarity
Random = np.random.Generator


def change_letters(text: str, rate: float, random: Random) -> str:
    """Replace, insert and delete characters, each a third of the changes."""
    return "".join(_change_letter(one, random) if random.random() < rate else one for one in text)


def _change_letter(one: str, random: Random) -> str:
    new = LETTERS[random.integers(26)]
    return (new, one + new, "")[random.integers(3)]


def change_words(text: str, rate: float, random: Random) -> str:
    """Put other words for some, one after the other in up to three places."""
    words, at = text.split(" "), 0
    while at < len(words):
        if random.random() < rate:
            for _ in range(random.integers(1, 4)):
                if at < len(words):
                    size = max(1, len(words[at]) + int(random.integers(-2, 3)))
                    words[at] = "".join(LETTERS[n] for n in random.integers(0, 26, size))
                    at += 1
        at += 1
    return " ".join(words)


def wrap_again(text: str, rate: float, random: Random) -> str:
    """Fill the paragraphs anew, at another width, and change letters."""
    width = int(random.integers(30, 120))
    paragraphs = [textwrap.fill(part, width) for part in text.split("\n\n")]
    return change_letters("\n\n".join(paragraphs), rate, random)


def change_every(text: str, rate: float, random: Random) -> str:
    """Change one character in each 1 / rate, as evenly as that."""
    letters, every = list(text), max(2, round(1 / max(rate, 1e-6)))
    for start in range(0, len(letters) - every + 1, every):
        letters[start + int(random.integers(every))] = LETTERS[random.integers(26)]
    return "".join(letters)


KINDS: dict[str, Callable[[str, float, Random], str]] = {
    "letters": change_letters,
    "words": change_words,
    "wrapped": wrap_again,
    "evenly": change_every,
}


def like(text: str, kind: str, least: float, most: float, random: Random) -> tuple[str, float]:
    """Return `text` changed until its similarity lies between `least` and `most`, and that."""
    low, high = 0.0, 0.5
    for _ in range(40):
        rate = (low + high) / 2
        changed = KINDS[kind](text, rate, random)
        alike = similarity(text, changed)
        if alike < least:
            high = rate
        elif alike > most:
            low = rate
        else:
            return changed, alike
    return changed, alike


def plant(
    passages: int, shortest: int, longest: int, random: Random
) -> tuple[list[str], list[Planted]]:
    """Return three splits, the first with the sources, and what was planted where."""
    text = shakespeare_text()
    half = len(text) // 2
    splits: list[list[str]] = [[text[:half]], [], []]
    sizes, host, planted = [half, 0, 0], half, []
    for number in range(passages):
        kind = str(random.choice(list(KINDS)))
        size = int(np.exp(random.uniform(np.log(shortest), np.log(longest))))
        source = int(random.integers(half - size))
        low, high = (0.8, 0.83) if number % 3 == 0 else (0.8, 1.0)
        if number % 2:
            low, high = (0.55, 0.6) if number % 3 == 0 else (0.2, 0.6)
        aim = random.uniform(low, high)
        changed, alike = like(
            text[source : source + size], kind, max(low, aim - 0.02), min(high, aim + 0.02), random
        )
        split = int(random.integers(3))
        gap = int(random.integers(100, 900))
        filler = text[host : host + gap]  # each once, so that it is no copy itself
        host = host + gap if host + 2 * gap < len(text) else half
        filler = filler if host > half else change_words(filler, 0.5, random)
        splits[split] += [filler, "\n\n", changed, "\n\n"]
        start = sizes[split] + len(filler) + 2
        planted.append((kind, split, start, start + len(changed), alike))
        sizes[split] = start + len(changed) + 2
    return ["".join(split) for split in splits], planted


def search(
    texts: list[str], *, reads: bool = True, spacing: int = SPACING
) -> tuple[list[NearCopies], float]:
    """Return the near copies in `texts`, and the seconds of one core that it took."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder, Index(folder) as index:
        place = 0
        for text in texts:
            for at in range(0, len(text), PIECE):
                found = sample(
                    text[at : at + PIECE], text[at + PIECE : at + PIECE + REACH], spacing=spacing
                )
                add_samples(index, found, start=place + at)
            place += len(text)
        whole = "".join(texts)

        def read(start: int, end: int) -> str:
            return whole[start:end]

        copies = list(find_near_copies(index, read if reads else None, spacing=spacing))
    return copies, time.process_time() - start


def covered_characters(copies: list[NearCopies], texts: list[str]) -> list[np.ndarray]:
    """Return for each character of each text whether it lies in a near copy."""
    covered = np.zeros(sum(map(len, texts)), dtype=bool)
    for found in copies:
        for start, end, *_ in found.rows():
            covered[start:end] = True
    return np.split(covered, np.cumsum(list(map(len, texts)))[:-1])


@click.group()
def main() -> None:
    """Measure the search for near copies."""


@main.command()
@click.option("--passages", default=4000, show_default=True)
@click.option("--shortest", default=300, show_default=True, help="Characters.")
@click.option("--longest", default=4000, show_default=True, help="Characters.")
@click.option("--seed", default=0, show_default=True)
@click.option("--reads/--sample-only", default=True, show_default=True)
@click.option("--spacing", default=SPACING, show_default=True)
def planted(
    passages: int, shortest: int, longest: int, seed: int, reads: bool, spacing: int
) -> None:
    """Print recall and precision by kind of change."""
    texts, hidden = plant(passages, shortest, longest, np.random.default_rng(seed))
    copies, seconds = search(texts, reads=reads, spacing=spacing)
    covered = covered_characters(copies, texts)
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for kind, split, start, end, alike in hidden:
        found = bool(covered[split][start:end].mean() >= 0.5)
        covered[split][start:end] = False
        if not 0.6 < alike < 0.8:
            for name in (kind, "all"):
                counts[name][0 if alike >= 0.8 else 2] += 1
                counts[name][1 if alike >= 0.8 else 3] += found
    click.echo(f"{'kind':10} copies  recall  others  taken for copies  precision")
    for name, (n_copies, n_found, n_others, n_wrong) in counts.items():
        precision = n_found / max(1, n_found + n_wrong)
        click.echo(
            f"{name:10} {n_copies:6} {n_found / max(1, n_copies):7.4f} {n_others:7}"
            f" {n_wrong:17} {precision:10.4f}"
        )
    elsewhere = sum(int(each.sum()) for each in covered)
    size = sum(map(len, texts))
    click.echo(f"found elsewhere: {elsewhere:,} of {size:,} characters; {seconds:.2f} s")


def repeat(megabytes: int, seed: int = 0) -> Iterator[str]:
    """Yield the built-in corpus again and again, with one changed character in each 90."""
    text = np.frombuffer(shakespeare_text().encode(), dtype=np.uint8)
    random = np.random.default_rng(seed)
    rows = np.arange(0, len(text) - 90, 90)
    for _ in range(round(megabytes * 1e6 / len(text))):
        changed = text.copy()
        changed[rows + random.integers(0, 90, len(rows))] = random.integers(97, 123, len(rows))
        yield changed.tobytes().decode()


@main.command()
@click.option("--megabytes", default=100, show_default=True)
@click.option("--folder", type=Path, default=None, help="For the text and the index.")
def repeated(megabytes: int, folder: Path | None) -> None:
    """Print speed and peak memory on the corpus repeated with changes."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = Path(place, "text")
        with path.open("wb") as file:
            for part in repeat(megabytes):
                file.write(part.encode())
        _search_file(path, Path(place, "index"))


def _search_file(path: Path, folder: Path) -> None:
    size, seconds = path.stat().st_size, dict[str, float]()
    spacing = spacing_for(size)
    with path.open("rb") as file, Index(folder) as index:

        def read(start: int, end: int) -> str:
            file.seek(start)
            return file.read(end - start).decode()

        start, wall = time.process_time(), time.perf_counter()
        for at in range(0, size, PIECE):
            text = read(at, at + PIECE + REACH)
            found = sample(text[:PIECE], text[PIECE:], spacing=spacing)
            seconds["sample"] = seconds.get("sample", 0) + time.process_time() - start
            start = time.process_time()
            add_samples(index, found, start=at)
            seconds["index"] = seconds.get("index", 0) + time.process_time() - start
            start = time.process_time()
        copies = list(find_near_copies(index, read, spacing=spacing))
        starts, ends = (np.concatenate([part[column] for part in copies]) for column in (0, 1))
        copied = int(np.diff(pieces_of(starts, ends)).sum())
        seconds["stretches"] = time.process_time() - start
        wall = time.perf_counter() - wall
    parts = ", ".join(f"{name} {each:.1f} s" for name, each in seconds.items())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    click.echo(
        f"{size / 1e6:.0f} MB: {parts} of one core, {sum(seconds.values()) / size * 1e9:.1f}"
        f" ns/byte; {wall:.1f} s in all; peak memory {peak:.0f} MiB; {copied / size:.1%} is"
        f" copied, {size - copied:,} characters are unique"
    )


@main.command()
@click.option("--megabytes", default=100, show_default=True)
def verbatim(megabytes: int) -> None:
    """Print how quickly held-out windows and samples of a model are looked up in text."""
    parts = list(repeat(megabytes))
    size, held_out = sum(map(len, parts)), parts[0][-400_000:]
    for name, text in (("all windows", held_out), ("a share of them", "".join(parts[:3]))):
        start = time.process_time()
        found = gather(text)
        middle = time.process_time()
        windows = Windows.of({"val": found})
        for part in parts[3:]:
            windows.look_up(part)
        looked = (time.process_time() - middle) / (size - sum(map(len, parts[:3])))
        click.echo(
            f"{name}: level {found.level}, gathered in {(middle - start) / len(text) * 1e9:.1f}"
            f" ns/character, looked up in {looked * 1e9:.1f}"
        )
    texts = [character_codes(held_out[at : at + 300]) for at in range(0, 60_000, 3000)]
    start = time.process_time()
    search_pieces(texts, (character_codes(part[:1_000_000]) for part in parts), 50)
    seconds = time.process_time() - start
    click.echo(f"20 samples of 300 characters in {len(parts)} MB: {seconds:.2f} s")


if __name__ == "__main__":
    main()
