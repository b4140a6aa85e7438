"""Scores: the loss of a text, and which characters surprise."""

import math
import re

import pytest
import torch
import torch.nn.functional as F

from nanogpt2.base.system.errors import DataError, DeviceError
from nanogpt2.config.config import Config
from nanogpt2.evaluate.score import Score, describe_score, score_text, surprises, write_page
from nanogpt2.model.gpt import GPT
from nanogpt2.tokens.bpe.bpe import BYTE_CHARACTERS, BytePairTokenizer
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer

TOKENIZER = CharTokenizer("\n <abcdef")


def test_the_loss_is_that_of_the_model(tiny: Config) -> None:
    model = GPT(tiny)
    score = score_text(model, TOKENIZER, "abcdef")
    idx = torch.from_numpy(TOKENIZER.encode("abcdef").astype("int64"))
    expected = F.cross_entropy(model(idx[None, :-1])[0], idx[1:]).item()
    assert score.figures["loss"] == pytest.approx(expected, abs=1e-5)
    assert score.figures["bits_per_byte"] == pytest.approx(expected / math.log(2), abs=1e-5)


def test_each_character_but_the_first_has_its_surprise_also_past_the_block(tiny: Config) -> None:
    text = "abc def\n" * 9
    score = score_text(GPT(tiny), TOKENIZER, text)
    pieces = list(surprises(score, TOKENIZER))
    assert "".join(piece for piece, _ in pieces) == text
    assert [bits is None for _, bits in pieces] == [True] + [False] * (len(text) - 1)
    assert sum(bits or 0 for _, bits in pieces) == pytest.approx(
        sum(n or 0 for n in score.nats) / math.log(2)
    )


def test_a_character_of_several_bytes_has_their_sum(tiny: Config) -> None:
    model = GPT({**tiny.to_dict(), "vocab_size": 256})
    score = score_text(model, ByteTokenizer(), "a日b")
    pieces = list(surprises(score, ByteTokenizer()))
    assert [piece for piece, _ in pieces] == ["a", "日", "b"]
    assert pieces[1][1] == pytest.approx(sum(n or 0 for n in score.nats[1:4]) / math.log(2))


def test_a_token_of_several_characters_is_one_piece(tiny: Config) -> None:
    # the second token ends 日 and begins 🙂
    pairs = BytePairTokenizer(["æĹ", "ðŁ", "¥ðŁ", "ab", *BYTE_CHARACTERS], ["a b"])
    tokens, nats = [3, 0, 2, *pairs.encode("🙂b").tolist()[2:]], [None, 1.0, 2.0, 4.0, 8.0, 16.0]
    pieces = list(surprises(Score({}, tokens, nats), pairs))
    assert [piece for piece, _ in pieces] == ["ab", "日", "🙂", "b"]
    bits = [bits and bits * math.log(2) for _, bits in pieces]
    assert bits == [None, pytest.approx(3.0), pytest.approx(12.0), pytest.approx(16.0)]
    score = score_text(GPT({**tiny.to_dict(), "vocab_size": 300}), pairs, "abab 日b")
    assert score.figures["bytes"] == 7  # all but the first token's


def test_the_page_shows_the_text_and_colours_it(tiny: Config) -> None:
    score = score_text(GPT(tiny), TOKENIZER, "a<b\nc")
    page = write_page(score, TOKENIZER, title="<t>")
    shown = re.sub(r"<[^>]*>", "", page[page.index("<pre>") :])
    assert shown.strip() == "a&lt;b\nc"
    bits = [f"{bits:.1f}" for _, bits in list(surprises(score, TOKENIZER))[1:] if bits]
    assert set(re.findall(r"<i title=([^>]*)>", page[page.index("<pre>") :])) == set(bits)
    assert "<title>&lt;t&gt;</title>" in page
    assert describe_score(score) in page


def test_the_page_is_not_many_times_the_text(tiny: Config) -> None:
    text = "abc def\n" * 500
    page = write_page(score_text(GPT(tiny), TOKENIZER, text), TOKENIZER, title="t")
    assert len(page) < 2000 + 20 * len(text)


@pytest.mark.parametrize(("bits", "level"), [(0.2, 0), (3.94, 3), (9.9, 9), (10.0, 10), (57.3, 10)])
def test_each_level_of_surprise_has_its_colour(bits: float, level: int) -> None:
    figures: dict[str, float | int] = {
        "loss": 1,
        "bits_per_byte": 1,
        "perplexity": 1,
        "tokens": 1,
        "bytes": 1,
    }
    score = Score(figures, [5, 6], [None, bits * math.log(2)])
    page = write_page(score, TOKENIZER, title="t")
    (title,) = re.findall(r"<i title=([^>]*)>", page[page.index("<pre>") :])
    rules = re.findall(r'^i(?:\[title\^="(.*?)"\])? \{ background: rgb\(.* / (\d+)%\)', page, re.M)
    chosen = [colour for start, colour in rules if title.startswith(start)]  # the last rule wins
    assert chosen[-1] == str(10 * level)


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_too_short_is_refused(tiny: Config, text: str) -> None:
    with pytest.raises(DataError, match="fewer than 2 tokens cannot be scored"):
        score_text(GPT(tiny), TOKENIZER, text)


def test_without_memory_it_says_what_to_do_here(tiny: Config) -> None:
    model = GPT(tiny)

    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model.ln_f.register_forward_hook(run_out)
    with pytest.raises(DeviceError, match=r"^out of memory; .*use --device cpu$"):
        score_text(model, TOKENIZER, "abcdef")
