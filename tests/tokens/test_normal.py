"""The one form of every text: newlines, Unicode's composed form, no byte order mark."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.tokens.normal import normalise

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


@pytest.mark.parametrize("form", FORMS)
def test_a_dataset_holds_the_form_that_prompts_will_have(form: str) -> None:
    dataset = CharDataset(FORMS[form], block_size=4)
    assert dataset.tokenizer.decode(dataset.tokens) == FORMS["plain"]
