"""What the library of windows.c finds is what numpy finds, which serves where it is missing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt2.device.compiler import load_library
from nanogpt2.text.copies import library
from nanogpt2.text.copies.held_out import Windows, gather
from nanogpt2.text.copies.index import Index, add_samples
from nanogpt2.text.copies.near import find_near_copies
from nanogpt2.text.copies.similarity import similarity
from nanogpt2.text.copies.windows import sample

Result = TypeVar("Result")

PIECES = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.text("ab \n", max_size=60),
        st.sampled_from(["—" * 40, "x" * 300, " " * 300, "The quick brown fox jumps. " * 9]),
    ),
    max_size=12,
)


@contextmanager
def library_as_found_with(compiler_command: str | None) -> Iterator[None]:
    """Look for the library anew, and again afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        if compiler_command is not None:
            patch.setenv("CC", compiler_command)
            patch.setattr(library, "load_library", load_library.__wrapped__)
        library.load.cache_clear()
        library.load()
        yield
    library.load.cache_clear()


def both_ways(function: Callable[[], Result]) -> tuple[Result, Result]:
    """Return what `function` gives with the library and without."""
    with library_as_found_with(None):
        if library.find_library(0) is None:
            pytest.skip(str(library.load()))
        one = function()
    with library_as_found_with("false"):
        assert library.find_library(1 << 30) is None
        return one, function()


def assert_equal(one: object, two: object) -> None:
    for left, right in zip(one, two, strict=True):  # type: ignore[call-overload]
        np.testing.assert_array_equal(left, right)
        assert left.dtype == right.dtype


@settings(deadline=None)
@given(pieces=PIECES, following=PIECES, spacing=st.sampled_from([1, 3, 16]))
def test_samples_are_the_same(pieces: list[str], following: list[str], spacing: int) -> None:
    text, rest = "".join(pieces), "".join(following)
    assert_equal(*both_ways(lambda: sample(text, rest, spacing=spacing)))


def test_samples_of_texts_longer_than_what_is_hashed_together_are_the_same() -> None:
    draw = np.random.default_rng(0)
    text = "".join(map(chr, draw.choice([32, 10, 97, 98, 99, 233, 0x2003, 0x1F642], 300_000)))
    for each in (text, text.replace("\U0001f642", "d").encode("ascii", "ignore").decode()):
        assert_equal(*both_ways(lambda each=each: sample(each[:-50], each[-50:])))  # type: ignore[misc]


@settings(deadline=None)
@given(pieces=PIECES, others=PIECES, level=st.integers(0, 3))
def test_what_of_held_out_text_stands_in_training_text_is_the_same(
    pieces: list[str], others: list[str], level: int
) -> None:
    text = "".join(pieces) + "é" * 100 + "The quick brown fox jumps. " * 9

    def find() -> tuple[np.ndarray, ...]:
        held_out = gather(text, "".join(others), level=level)
        windows = Windows.of({"val": held_out, "test": gather(text[:500])})
        found = windows.look_up("".join(others + pieces), text)
        return held_out.hashes, held_out.counts, found

    assert_equal(*both_ways(find))


@settings(deadline=None)
@given(one=PIECES, two=PIECES)
def test_similarity_is_the_same(one: list[str], two: list[str]) -> None:
    for text in ("".join(one + two), "".join(two)):
        left, right = both_ways(lambda text=text: similarity("".join(one), text))  # type: ignore[misc]
        assert left == right


def test_near_copies_are_the_same(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    letters = draw.integers(97, 123, 40_000).astype(np.uint8)
    text = ""
    for every in (50, 90):
        changed = np.tile(letters, 3)
        changed[draw.integers(0, len(changed), len(changed) // every)] = 65
        text += changed.tobytes().decode()

    def find() -> list[np.ndarray]:
        with Index(tmp_path / "index") as index:
            for start in range(0, len(text), 10_000):
                found = sample(text[start : start + 10_000], text[start + 10_000 :])
                add_samples(index, found, start=start)
            copies = find_near_copies(index, lambda start, end: text[start:end])
            return [np.concatenate(column) for column in zip(*copies, strict=True)]

    one, two = both_ways(find)
    assert len(one[0]) > 10
    assert_equal(one, two)


@pytest.mark.parametrize("command", ["false", "no-such-compiler"])
def test_without_a_compiler_the_reason_is_known(command: str) -> None:
    with library_as_found_with(command):
        assert library.load() == f"text/copies/windows.c: `{command}` does not compile it here"
