"""Parts of a large split: how many tokens, where, and what they add up to."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.config.config import Config
from nanogpt2.evaluate import parts
from nanogpt2.evaluate.evaluate import describe, evaluate_splits, evaluate_tokens
from nanogpt2.evaluate.parts import Part, choose_parts, texts_of
from nanogpt2.model.checkpoint import Checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.text.copies.overlap import search_pieces
from nanogpt2.text.copies.windows import character_codes
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer


@given(
    n_tokens=st.integers(2, 100_000),
    block_size=st.integers(1, 600),
    max_tokens=st.one_of(st.none(), st.integers(1, 100_000)),
)
def test_parts_lie_evenly_over_the_split_and_keep_to_the_budget(
    n_tokens: int, block_size: int, max_tokens: int | None
) -> None:
    found = choose_parts(n_tokens, block_size, max_tokens)
    predicted = [at for start, end in found for at in (start + 1, end - 1)]
    assert found[0].start == 0
    assert predicted == sorted(predicted)
    n_predicted = sum(end - start - 1 for start, end in found)
    if max_tokens is None or max_tokens >= n_tokens - 1:
        assert found == [Part(0, n_tokens)]
    else:
        assert max_tokens / 2 < n_predicted <= max_tokens
        assert len({end - start for start, end in found}) == 1
        assert found[-1].end == n_tokens or len(found) == 1
        gaps = np.diff([start for start, _ in found])
        assert not len(gaps) or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("stride", [None, 5])
def test_parts_add_up_to_what_each_is_alone_whatever_the_batch_size(
    tiny: Config, stride: int | None
) -> None:
    model = GPT(tiny)
    tokens = np.random.default_rng(0).integers(64, size=3000).astype(np.uint16)
    found = choose_parts(3000, 16, 800)
    assert len(found) == 3
    alone = [
        evaluate_tokens(model, tokens[a:b], ByteTokenizer(), batch_size=8, stride=stride)
        for a, b in found
    ]
    for batch_size in (1, 7, 100):
        score = evaluate_tokens(
            model, tokens, ByteTokenizer(), batch_size=batch_size, stride=stride, max_tokens=800
        )
        assert score.totals.tokens == score.totals.bytes == 768
        assert score.totals.nats == pytest.approx(sum(one.totals.nats for one in alone), rel=1e-5)


def test_the_figures_tell_of_how_many_tokens_they_are(tiny: Config, text: str) -> None:
    Path("text.txt").write_text(text, encoding="utf-8")
    prepare(Path("text.txt"), Path("data"), tokenizer="char", vocab_size=64, fractions=(0.2, 0.2))
    checkpoint = Checkpoint(GPT(tiny), CharTokenizer.train(text), {})
    whole = evaluate_splits(checkpoint, "data", batch_size=4).figures
    part = evaluate_splits(checkpoint, "data", batch_size=4, max_tokens=32).figures
    for split in ("val", "test"):
        assert "of_tokens" not in whole[split]
        assert part[split]["tokens"] == 32
        assert part[split]["of_tokens"] == whole[split]["tokens"]
    assert f"32 tokens of {whole['val']['tokens']:,}" in describe(part)


@pytest.mark.parametrize("tokenizer", [ByteTokenizer(), CharTokenizer("abé€🙂\n")])
@given(text=st.text("abé€🙂\n", max_size=80), chunk=st.integers(1, 9))
def test_pieces_of_a_text_are_the_text(tokenizer: Tokenizer, text: str, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "CHUNK", chunk)
        pieces = list(texts_of(tokenizer.encode(text), tokenizer))
    if chunk >= 4:  # the bytes of a character
        assert "".join(pieces) == text
        assert max(map(len, pieces), default=0) <= chunk


@given(
    texts=st.lists(st.text("ab", max_size=30), min_size=1, max_size=3),
    source=st.text("ab", max_size=200),
    size=st.integers(1, 60),
    length=st.integers(1, 12),
)
def test_a_source_in_pieces_is_searched_as_if_it_were_one(
    texts: list[str], source: str, size: int, length: int
) -> None:
    def search(size: int) -> tuple[object, float]:
        pieces = [source[at : at + size] for at in range(0, len(source), size)]
        found = search_pieces(
            [character_codes(text) for text in texts], map(character_codes, pieces), length
        )
        return found.stretches, found.share()

    assert search(size) == search(len(source) + 1)
