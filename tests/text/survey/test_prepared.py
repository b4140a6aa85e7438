"""Prepared data: its tokens are told where they are those of the corpus."""

from pathlib import Path

from preparing import make_files

from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.text.survey.prepared import read_tokens

CORPUS, FOLDER = Path("raw"), Path("prepared")


def make() -> None:
    make_files("raw/a.txt")
    (CORPUS / "a.txt").write_text("a" * 60 + "b" * 30 + "é" * 10, encoding="utf-8")
    prepare(CORPUS, FOLDER, tokenizer="char", vocab_size=256, fractions=(0.2, 0.2))


def test_tokens_are_counted_by_how_often_they_stand_in_all_splits() -> None:
    make()
    tokens = read_tokens(CORPUS, FOLDER)
    assert tokens is not None
    assert (tokens.tokenizer, tokens.vocabulary, tokens.tokens) == ("char", 3, 100)
    assert tokens.per_byte == round(100 / 110, 6)
    assert tokens.commonest == (("a", 60), ("b", 30), ("é", 10))
    assert tokens.rarest == tokens.commonest[::-1]
    assert tokens.unused == 0


def test_prepared_data_of_another_text_or_damaged_or_gone_tells_nothing() -> None:
    make()
    (CORPUS / "b.txt").write_text("more", encoding="utf-8")
    assert read_tokens(CORPUS, FOLDER) is None
    (CORPUS / "b.txt").unlink()
    (FOLDER / "tokenizer.json").write_text("{", encoding="utf-8")
    assert read_tokens(CORPUS, FOLDER) is None
    assert read_tokens(CORPUS, Path("gone")) is None
