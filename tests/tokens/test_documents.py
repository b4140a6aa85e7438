"""Windows that follow documents."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.base.system.checksums import read_sealed, write_sealed
from nanogpt2.base.system.errors import DataError
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.tokens import documents
from nanogpt2.tokens.bpe.arrays import TokenArray
from nanogpt2.tokens.dataset import (
    TokenDataset,
    draw_documents,
    lay_out_documents,
    load_split,
)
from nanogpt2.tokens.documents import find_documents, lay_out

SEPARATOR = [7, 7, 8]


def join(lengths: list[int]) -> TokenArray:
    """Return documents of `lengths` with the separator after each but the last."""
    tokens = [token for length in lengths for token in [1] * length + SEPARATOR]
    return np.array(tokens[: -len(SEPARATOR)], np.uint16)


def test_documents_begin_after_each_separator() -> None:
    assert find_documents(join([4, 1, 2]), SEPARATOR).tolist() == [0, 7, 11]
    assert find_documents(np.array([1, 7, 1, 7, 7], np.uint16), SEPARATOR).tolist() == [0]
    assert find_documents(np.array([1, 9, 2, 9], np.uint16), [9]).tolist() == [0, 2]
    assert find_documents(np.array([7], np.uint16), SEPARATOR).tolist() == [0]


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 8])
def test_the_search_does_not_depend_on_its_pieces(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = join([3, 1, 6, 2, 1])
    whole = find_documents(tokens, SEPARATOR).tolist()
    monkeypatch.setattr(documents, "PIECE", piece)
    assert find_documents(tokens, SEPARATOR).tolist() == whole


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), block_size=st.integers(1, 30))
def test_each_document_that_fits_stands_whole_in_a_window_and_no_token_is_left_out(
    lengths: list[int], block_size: int
) -> None:
    tokens = join(lengths)
    layout = lay_out(tokens, SEPARATOR, block_size)
    windows, begins = layout.windows.tolist(), layout.documents.tolist()
    for begin, end in zip(begins, [*begins[1:], len(tokens)], strict=True):
        if end - begin <= block_size:
            assert any(start <= begin and end <= start + block_size for start in windows)
    for before, start in pairwise(windows):
        assert before < start <= before + block_size
        assert start in begins or start == before + block_size
    assert windows[0] == 0
    assert windows[-1] < len(tokens) <= windows[-1] + block_size
    assert layout.read_twice == pytest.approx(len(windows) * block_size / len(tokens) - 1)


def test_what_documents_cost_is_said() -> None:
    assert str(lay_out(join([5, 5, 20, 5]), SEPARATOR, 8)) == (
        "documents: 4 in 6 windows, 66.7% of which begin with one; 9.1% of the tokens are read"
        " twice an epoch"
    )


def test_over_an_epoch_each_window_of_the_layout_comes_once() -> None:
    layout = lay_out(join([3, 9, 14, 2, 2, 2, 30]), SEPARATOR, 8)
    count = len(layout.windows)
    epochs = [draw_documents(layout, count, seed=1, step=step).tolist() for step in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [layout.windows.tolist()] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_text_without_separator_has_no_documents() -> None:
    with pytest.raises(DataError, match="sampling: found documents; allowed: epoch or random"):
        lay_out_documents(TokenDataset(range(30), 8))


def test_a_prepared_text_knows_its_documents_by_a_separator_of_its_own() -> None:
    Path("raw").mkdir()
    for name in "abc":
        Path(f"raw/{name}.txt").write_text("the quick brown fox\n" * 20, encoding="utf-8")
    prepare("raw", "data", tokenizer="byte", vocab_size=256, fractions=(0.1, 0.0), separator="###")
    path = Path("data/dataset.json")
    for text, begins in (("###", [0, 403, 806]), ("\n", None)):
        separator = {"text": text, "token": None, "tokens": list(text.encode())}
        write_sealed(path, read_sealed(path) | {"separator": separator})
        dataset = load_split("data", "train", 16)
        if begins is None:
            with pytest.raises(DataError, match="sampling"):
                lay_out_documents(dataset)
        else:
            assert lay_out_documents(dataset).documents.tolist() == begins
