"""What tokenizer.json, Hugging Face's form, says of a tokenizer, to have the same tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nanogpt2.base.system.errors import DataError
from nanogpt2.tokens.bpe.arrays import as_utf8
from nanogpt2.tokens.bpe.bpe import BYTE_CHARACTERS, END_OF_TEXT, BytePairTokenizer
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer

PAD = "<|pad|>"
NO_BYTE = 0xFF  # never part of UTF-8


@dataclass(frozen=True)
class SpecialTokens:
    """Numbers of the tokens that no text has, and how many rows of the embedding all need."""

    pad: int | None
    bos: int | None
    eos: int | None
    rows: int


def special_tokens(tokenizer: Tokenizer, vocab_size: int) -> SpecialTokens:
    """Return the special tokens that `tokenizer` has in a model with `vocab_size` rows."""
    size = tokenizer.size
    if isinstance(tokenizer, BytePairTokenizer) and END_OF_TEXT in tokenizer.special:
        end = tokenizer.vocabulary.index(END_OF_TEXT)
        return SpecialTokens(end, end, end, size)
    if isinstance(tokenizer, ByteTokenizer):
        return SpecialTokens(NO_BYTE, None, None, size)
    if vocab_size > size:
        return SpecialTokens(size, None, None, size + 1)
    return SpecialTokens(None, None, None, size)


def describe(tokenizer: Tokenizer, special: SpecialTokens) -> dict[str, Any]:
    """Return the content of tokenizer.json."""
    numbers = {}
    if isinstance(tokenizer, BytePairTokenizer):
        numbers = {token: tokenizer.vocabulary.index(token) for token in tokenizer.special}
        parts = describe_pairs(tokenizer.vocabulary, tokenizer.merges, use_regex=True)
    elif isinstance(tokenizer, ByteTokenizer):
        parts = describe_pairs([*BYTE_CHARACTERS[:NO_BYTE], PAD], [], use_regex=False)
    elif isinstance(tokenizer, CharTokenizer):
        parts = _describe_characters(tokenizer.characters)
    else:
        raise DataError(f"tokenizer: found {tokenizer.name}; allowed: bpe, byte, char")
    if special.pad is not None and special.pad not in numbers.values():
        numbers[PAD] = special.pad
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": number, "content": token, **flags, "special": True}
        for token, number in sorted(numbers.items(), key=lambda item: item[1])
    ]
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    return head | {"normalizer": None, "post_processor": None} | parts


def describe_pairs(
    vocabulary: Sequence[str], merges: Sequence[str], *, use_regex: bool
) -> dict[str, Any]:
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: number for number, token in enumerate(vocabulary)},
        "merges": [merge.split(" ") for merge in merges],
    }
    level["use_regex"] = use_regex
    return {"pre_tokenizer": level, "decoder": level, "model": model}


def _describe_characters(characters: str) -> dict[str, Any]:
    as_utf8(characters)
    pattern = {"Regex": r"[\s\S]"}
    model = {
        "type": "WordLevel",
        "vocab": {character: number for number, character in enumerate(characters)},
        "unk_token": "<unk>",  # not in vocab: an unknown character is an error, not dropped
    }
    return {
        "pre_tokenizer": {
            "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False
        },
        "decoder": {"type": "Fuse"},
        "model": model,
    }  # fmt: skip
