"""GPT-2's own vocabulary, from a package that has it; tests of it skip where that is missing."""

from functools import cache
from pathlib import Path

import pytest

from nanogpt2.base.system.errors import ExtraError
from nanogpt2.tokens.bpe import gpt2
from nanogpt2.tokens.bpe.bpe import BytePairTokenizer


def gpt2_files() -> tuple[Path, Path]:
    """Return the paths of encoder.json and vocab.bpe."""
    try:
        return gpt2.find_file(gpt2.VOCABULARY), gpt2.find_file(gpt2.MERGES)
    except ExtraError as error:
        pytest.skip(str(error))


def gpt2_tokenizer() -> BytePairTokenizer:
    """Return the tokenizer of those files."""
    gpt2_files()
    return _make_tokenizer()


@cache
def _make_tokenizer() -> BytePairTokenizer:
    return gpt2.gpt2_tokenizer()
