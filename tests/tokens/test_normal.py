"""The one form of every text: newlines, Unicode's composed form, no byte order mark."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.tokens.normal import normalise, normalise_within

FORMS = {
    "plain": "Größe\nnaïve café\n",
    "decomposed": "Gro\u0308ße\nnai\u0308ve cafe\u0301\n",
    "Windows": "Größe\r\nnaïve café\r\n",
    "old Mac": "Größe\rnaïve café\r",
    "mainframe": "Größe\x85naïve café\x85",
    "line separators": "Größe\u2028naïve café\u2029",
    "byte order mark": "\ufeffGröße\nnaïve café\n",
    "two marks": "\ufeff\ufeffGröße\nnaïve café\n",
}


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\x85", "\u2028", "\u2029"], ids=ascii)
def test_every_newline_becomes_the_same(newline: str) -> None:
    assert normalise(f"a{newline}{newline}b{newline}") == "a\n\nb\n"


def test_other_white_space_is_kept() -> None:
    assert normalise("a\tb\x0bc\x0cd\u00a0e") == "a\tb\x0bc\x0cd\u00a0e"


@given(st.text())
def test_the_form_is_composed_and_final(text: str) -> None:
    normal = normalise(text)
    assert normal == normalise(normal) == unicodedata.normalize("NFC", normal)
    assert not set(normal) & set("\r\x85\u2028\u2029")
    assert not normal.startswith("\ufeff")


@pytest.mark.parametrize("form", FORMS)
def test_the_same_text_has_one_form(form: str) -> None:
    assert normalise(FORMS[form]) == FORMS["plain"]


def test_a_mark_within_a_text_is_kept() -> None:
    assert normalise("a\ufeffb") == "a\ufeffb"


MARKS = "aé\n\r \x85\ufeff\u0301\u0323\u0928\u093c\u094d\u09c7\u09be\u1100\u1161\u11a8\u304b\u3099"


@given(
    st.lists(st.text(st.sampled_from(MARKS) | st.characters()), max_size=6), st.integers(0, 5000)
)
def test_a_long_text_has_the_form_that_the_standard_gives_the_whole(
    parts: list[str], size: int
) -> None:
    text = ("x" * size + "\n").join(parts)
    plain = re.sub("\r\n|[\r\x85\u2028\u2029]", "\n", text.lstrip("\ufeff"))
    assert normalise(text) == unicodedata.normalize("NFC", plain)


@given(st.lists(st.text(st.sampled_from(MARKS) | st.characters())))
def test_pieces_that_begin_with_an_ascii_letter_have_the_form_of_the_whole(
    parts: list[str],
) -> None:
    pieces = [f"x{part}" for part in parts]
    assert "".join(map(normalise_within, pieces)) == normalise("".join(pieces))


@pytest.mark.parametrize("form", FORMS)
def test_a_dataset_holds_the_form_that_prompts_will_have(form: str) -> None:
    dataset = CharDataset(FORMS[form], block_size=4)
    assert dataset.tokenizer.decode(dataset.tokens) == FORMS["plain"]
