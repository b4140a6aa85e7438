"""Near copies: the planted ones are found, however the text is cut and wrapped, and no others."""

import textwrap
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.text.copies import index as index_module
from nanogpt2.text.copies.index import Index, add_samples
from nanogpt2.text.copies.near import NearCopies, find_near_copies
from nanogpt2.text.copies.similarity import similarity
from nanogpt2.text.copies.windows import sample

WORDS = [f"{a}{b}{c}" for a in ("st", "b", "wh", "l") for b in "aeiou" for c in ("nd", "rk", "t")]


def write(size: int, seed: int) -> str:
    """Return lines of random words, `size` characters."""
    random = np.random.default_rng(seed)
    words = " ".join(WORDS[n] for n in random.integers(len(WORDS), size=size // 3))
    return textwrap.fill(words, 70)[:size]


def change(text: str, every: int, seed: int) -> str:
    """Return `text` with one other character in each `every`."""
    random, letters = np.random.default_rng(seed), list(text)
    for start in range(0, len(letters) - every + 1, every):
        letters[start + int(random.integers(every))] = "XYZ"[random.integers(3)]
    return "".join(letters)


def search(texts: list[str], folder: Path, *, piece: int = 5000, reads: bool = True) -> NearCopies:
    """Return the near copies in texts that come one after the other."""
    whole, place = "".join(texts), 0

    def read(start: int, end: int) -> str:
        return whole[start:end]

    with Index(folder) as index:
        for text in texts:
            for at in range(0, len(text), piece):
                found = sample(text[at : at + piece], text[at + piece :])
                add_samples(index, found, start=place + at)
            place += len(text)
        parts = list(find_near_copies(index, read if reads else None))
    assert not list(folder.rglob("*.bin"))
    return NearCopies(*(np.concatenate(column) for column in zip(*parts, strict=True)))


@settings(max_examples=50)
@given(
    text=st.text("ab é字🙂\n\u3000", max_size=900),
    cuts=st.lists(st.integers(0, 900), max_size=4),
)
def test_the_sample_of_a_text_is_that_of_its_pieces(text: str, cuts: list[int]) -> None:
    whole = sample(text, spacing=2)
    ends = sorted({0, len(text), *(min(at, len(text)) for at in cuts)})
    parts = [(a, sample(text[a:b], text[b:], spacing=2)) for a, b in pairwise(ends)]
    for column in range(3):
        joined = [n + at * (column > 0) for at, part in parts for n in part[column].tolist()]
        assert joined == whole[column].tolist()


@pytest.mark.parametrize("width", [20, 45, 200])
def test_text_that_is_wrapped_again_has_the_same_sample(width: int) -> None:
    text = write(20_000, 0)
    wrapped = textwrap.fill(text, width, initial_indent="  ").replace("\n", "\n\t  ")
    once, again = sample(text), sample(wrapped)
    np.testing.assert_array_equal(once.hashes, again.hashes)
    for start, end, other, last in zip(*once[1:], *again[1:], strict=True):
        assert text[start:end].split() == wrapped[other:last].split()
    assert len("".join(text.split())) / len(once.hashes) == pytest.approx(16, rel=0.1)


def test_rules_have_no_sample() -> None:
    for rule in ("-", "=-", "|.:", "abcdefgh"):
        assert not len(sample(rule * 5000).hashes)
    assert len(sample("abcdefghi" * 5000).hashes) in (0, *range(4900, 30_000))


@settings(max_examples=40)
@given(
    hashes=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1)), max_size=60),
    buffer=st.sampled_from([1, 7, 1000]),
    together=st.sampled_from([2, 8, 1 << 18]),
)
def test_the_index_tells_the_first_and_the_one_before(
    tmp_path_factory: pytest.TempPathFactory,
    hashes: list[tuple[int, int]],
    buffer: int,
    together: int,
) -> None:
    values = [(number * 0x9E3779B97F4A7C15 + (high << 63)) % 2**64 for number, high in hashes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(index_module, "BUFFER", buffer)
        patch.setattr(index_module, "TOGETHER", together)
        with Index(tmp_path_factory.mktemp("index")) as index:
            for number, value in enumerate(values):
                at = 10 * number
                index.add(np.array([value], np.uint64), np.array([at]), np.array([at + 3]))
            places = index.places()
            found = [
                (places.of(r.items), places.of(r.first), places.of(r.previous))
                for r in index.repeats()
            ]
    seen: dict[int, list[tuple[int, int]]] = {}
    expected = []
    for number, value in enumerate(values):
        before, place = seen.setdefault(value, []), (10 * number, 10 * number + 3)
        if before:
            expected.append((place, before[0], before[-1]))
        before.append(place)
    columns = [[list(zip(*places, strict=True)) for places in three] for three in found]
    assert [row for three in columns for row in zip(*three, strict=True)] == expected


@given(one=st.text("ab c\n", max_size=40), two=st.text("abé", max_size=40))
def test_similarity_is_the_share_of_common_fives(one: str, two: str) -> None:
    def grams(text: str) -> set[str]:
        text = "".join(text.split())
        return {text[at : at + 5] for at in range(len(text) - 4)}

    both = grams(one) | grams(two)
    assert similarity(one, two) == len(grams(one) & grams(two)) / max(1, len(both))


KINDS: dict[str, Callable[[str, int], str]] = {
    "as it is": lambda text, seed: text,
    "one in 90": lambda text, seed: change(text, 90, seed),
    "one in 80, wrapped": lambda text, seed: textwrap.fill(change(text, 80, seed), 50),
}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("reads", [True, False])
def test_planted_copies_are_found_in_other_splits_and_unlike_ones_are_not(
    kind: str, reads: bool, tmp_path: Path
) -> None:
    sources = [write(size, seed) for seed, size in enumerate(range(400, 2400, 100))]
    hidden = [KINDS[kind](source, seed) for seed, source in enumerate(sources)]
    unlike = [change(source, 18, seed) for seed, source in enumerate(sources)]
    assert all(similarity(a, b) >= 0.8 for a, b in zip(sources, hidden, strict=True))
    assert all(similarity(a, b) <= 0.62 for a, b in zip(sources, unlike, strict=True))
    texts, places = ["\n".join(sources), "", ""], []
    for number, (copy, other) in enumerate(zip(hidden, unlike, strict=True)):
        split = 1 + number % 2
        for part in (write(300, 100 + number), copy, write(300, 200 + number), other):
            if part is copy:
                places.append((split, len(texts[split]), number))
            texts[split] += part + "\n"
    found = search(texts, tmp_path, reads=reads)
    covered = np.zeros(sum(map(len, texts)), dtype=bool)
    for start, end, *_ in found.rows():
        covered[start:end] = True
    rest = np.split(covered, np.cumsum(list(map(len, texts)))[:-1])
    n_found = 0
    for split, start, number in places:
        n_found += rest[split][start : start + len(hidden[number])].mean() > 0.5
        rest[split][start : start + len(hidden[number])] = False
    assert n_found >= (20 if reads else 19)
    assert sum(map(np.sum, rest)) <= 0.02 * sum(map(len, unlike))


def test_copies_of_copies_are_found_and_lead_to_their_source(tmp_path: Path) -> None:
    source = write(3000, 0)
    texts = [source + write(2000, 1)]
    for generation in range(1, 4):
        source = change(source, 100, generation)
        texts[0] += source + write(1000, 10 + generation)
    found = search(texts, tmp_path)
    assert (found.source_starts < found.starts).all()
    for place in (5000, 9000, 13_000):
        of = (found.starts < place + 200) & (found.ends > place + 2800)
        assert of.any()
        sources = set((found.source_starts[of] - found.starts[of] + place).tolist())
        assert all(min(abs(at - one) for one in (0, 5000, 9000)) < 50 for at in sources)


def test_neither_cuts_nor_memory_change_what_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = write(60_000, 0)
    text += change(text, 90, 1) + write(5000, 2) + change(text[20_000:23_000], 60, 3)
    expected = search([text, text[:700]], tmp_path, piece=1 << 20).rows()
    assert expected
    for piece, buffer in ((777, 1 << 20), (10_000, 500)):
        monkeypatch.setattr(index_module, "BUFFER", buffer)
        assert search([text, text[:700]], tmp_path, piece=piece).rows() == expected


def test_a_line_that_comes_a_thousand_times_is_a_copy_of_itself(tmp_path: Path) -> None:
    line = write(200, 0)
    found = search([line * 1000], tmp_path)
    covered = np.zeros(200_000, dtype=bool)
    for start, end, *_ in found.rows():
        covered[start:end] = True
    assert covered[400:].mean() > 0.99
    assert not covered[:100].any()
