"""Tokenizer files as transformers has them: tokenizer.json, or GPT-2's vocabulary and merges.

Read are GPT-2's byte pair encoding and what is written here, nothing else: a tokenizer that is
nearly one of ours would give other tokens without a word.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from nanogpt2.base import files
from nanogpt2.base.errors import CheckpointError, DataError
from nanogpt2.exchange.folder import or_refuse, read_object, refused
from nanogpt2.tokens.arrays import as_utf8
from nanogpt2.tokens.bpe import BYTE_CHARACTERS, END_OF_TEXT, BytePairTokenizer
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
PAD = "<|pad|>"
NO_BYTE = 0xFF  # never part of UTF-8
PAIRS = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))
OTHERS = (
    "tokenizer.model",
    "spiece.model",
    "vocab.txt",
    *(name for pair in PAIRS for name in pair),
)
GPT2_CLASSES = (None, "GPT2Tokenizer", "GPT2TokenizerFast")

# What a key of tokenizer.json may be where GPT-2's encoding is in it; None: it may be missing.
GPT2_VALUES: dict[str, tuple[Any, ...]] = {
    "model.type": ("BPE", None),
    "model.dropout": (None, 0.0),
    "model.continuing_subword_prefix": (None, ""),
    "model.end_of_word_suffix": (None, ""),
    "model.byte_fallback": (False, None),
    "model.ignore_merges": (False, None),
    "normalizer": (None,),
    "pre_tokenizer.type": ("ByteLevel",),
    "pre_tokenizer.add_prefix_space": (False,),
    "pre_tokenizer.use_regex": (True, None),
    "decoder.type": ("ByteLevel", None),
}
TEXT_ALONE = [{"Sequence": {"id": "A", "type_id": 0}}]  # the template that adds no tokens
ADDED_VALUES = {"special": True, "single_word": False, "lstrip": False, "rstrip": False}
SETTINGS_OFF = ("add_prefix_space", "add_bos_token", "add_eos_token", "do_lower_case")


@dataclass(frozen=True)
class SpecialTokens:
    """Numbers of the tokens that no text has, and how many rows of the embedding all need."""

    pad: int | None
    bos: int | None
    eos: int | None
    rows: int


# --- Out ---


def write_tokenizer(
    tokenizer: Tokenizer, folder: str | Path, *, block_size: int, vocab_size: int | None = None
) -> SpecialTokens:
    """Write `tokenizer` into `folder` for transformers' AutoTokenizer; the same bytes each time.

    Batches are padded with the end of text, with the byte that no text has, or with a row of the
    embedding that the tokenizer leaves over, where a model with `vocab_size` rows has one.
    DataError where a character is half a surrogate pair.
    """
    special = special_tokens(tokenizer, vocab_size or tokenizer.size)
    data = _describe(tokenizer, special)
    names = {added["id"]: added["content"] for added in data["added_tokens"]}
    ids = {"bos_token": special.bos, "eos_token": special.eos, "pad_token": special.pad}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": block_size,
        "clean_up_tokenization_spaces": False,  # else spaces before punctuation are lost
        "split_special_tokens": True,  # a special token's name in a text is text
        "padding_side": "left",  # texts go on at the right
        "model_input_names": ["input_ids", "attention_mask"],  # GPT-2 would add up token types
        **{key: names[number] for key, number in ids.items() if number is not None},
    }
    files.write_json(Path(folder, TOKENIZER), data)
    files.write_json(Path(folder, SETTINGS), settings)
    return special


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


def _describe(tokenizer: Tokenizer, special: SpecialTokens) -> dict[str, Any]:
    """Return the content of tokenizer.json."""
    numbers = {}
    if isinstance(tokenizer, BytePairTokenizer):
        numbers = {token: tokenizer.vocabulary.index(token) for token in tokenizer.special}
        parts = _describe_pairs(tokenizer.vocabulary, tokenizer.merges, use_regex=True)
    elif isinstance(tokenizer, ByteTokenizer):
        parts = _describe_pairs([*BYTE_CHARACTERS[:NO_BYTE], PAD], [], use_regex=False)
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


def _describe_pairs(
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


# --- In ---


def read_tokenizer(folder: str | Path) -> Tokenizer | None:
    """Return the tokenizer whose files are in `folder`, or None where there are none.

    CheckpointError of one line where it is no byte pair encoding like GPT-2's and none of ours.
    """
    folder = Path(folder)
    settings = read_object(folder / SETTINGS) if files.exists(folder / SETTINGS) else {}
    for key in SETTINGS_OFF:
        if settings.get(key):
            raise refused(folder / SETTINGS, key, settings[key], "false")
    path = folder / TOKENIZER
    if files.exists(path):
        data = _without_extras(path, read_object(path))
        return _find_ours(data) or _read_gpt2(path, data)
    for vocabulary, merges in PAIRS:
        if all(files.exists(folder / name) for name in (vocabulary, merges)):
            kind = settings.get("tokenizer_class")
            if kind not in GPT2_CLASSES:
                raise refused(folder / SETTINGS, "tokenizer_class", kind, "GPT2Tokenizer")
            return _read_pair(folder, vocabulary, merges)
    if there := [name for name in OTHERS if files.exists(folder / name)]:
        raise CheckpointError(
            f"{folder / there[0]}: no tokenizer that can be read; allowed: {TOKENIZER}, or"
            f" {' or '.join(' with '.join(pair) for pair in PAIRS)}"
        )
    return None


def _without_extras(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return `data` without what changes no tokens; CheckpointError where a template adds some."""
    processor = data.get("post_processor")
    if (
        _find(data, "post_processor.type") not in (None, "ByteLevel")
        and _find(data, "post_processor.single") != TEXT_ALONE
    ):
        raise refused(path, "post_processor", processor, "null")
    return {**data, "post_processor": None, "truncation": None, "padding": None}


def _find_ours(data: Mapping[str, Any]) -> Tokenizer | None:
    """Return the tokenizer, char or byte, for which `write_tokenizer` writes exactly `data`."""
    model = data.get("model")
    characters = model.get("vocab") if isinstance(model, dict) else None
    candidates: list[Tokenizer] = [ByteTokenizer()]
    if isinstance(characters, dict) and all(len(each) == 1 for each in characters):
        candidates.append(CharTokenizer("".join(characters)))
    for tokenizer in candidates:
        for vocab_size in (tokenizer.size, tokenizer.size + 1):
            if _describe(tokenizer, special_tokens(tokenizer, vocab_size)) == data:
                return tokenizer
    return None


def _read_gpt2(path: Path, data: Mapping[str, Any]) -> Tokenizer:
    """Return the byte pair encoding in tokenizer.json; CheckpointError where it is another."""
    for key, allowed in GPT2_VALUES.items():
        found = _find(data, key)
        if json.dumps(found) not in map(json.dumps, allowed):
            shown = " or ".join(json.dumps(value) for value in allowed if value is not None)
            raise refused(path, key, found, shown or "null")
    special = _read_added(path, data.get("added_tokens") or [])
    merges = _typed(path, "model.merges", _find(data, "model.merges"), list)
    joined = [" ".join(map(str, merge)) if isinstance(merge, list) else merge for merge in merges]
    vocab = _typed(path, "model.vocab", _find(data, "model.vocab"), dict)
    return _make(path, "model", {**vocab, **special}, joined, list(special))


def _read_added(path: Path, added: Any) -> dict[str, Any]:
    """Return the special tokens of tokenizer.json by number; CheckpointError for other ones."""
    special = {}
    for token in _typed(path, "added_tokens", added, list):
        content = json.dumps(_find(token, "content"), ensure_ascii=False)
        for key, value in ADDED_VALUES.items():
            if _find(token, key) is not value:
                where = f"added_tokens: {content}: {key}"
                raise refused(path, where, _find(token, key), json.dumps(value))
        special[str(token.get("content"))] = token.get("id")
    return special


def _read_pair(folder: Path, vocabulary: str, merges: str) -> Tokenizer:
    """Return the byte pair encoding of a file with the vocabulary and one with the merges."""
    numbers = read_object(folder / vocabulary)
    added = folder / "added_tokens.json"
    special = read_object(added) if files.exists(added) else {}
    ends = [END_OF_TEXT] if END_OF_TEXT in numbers and END_OF_TEXT not in special else []
    lines = or_refuse(files.read_text, folder / merges).replace("\r\n", "\n").split("\n")
    pairs = [line for line in lines if line and not line.startswith("#version")]
    return _make(folder / merges, "merges", {**numbers, **special}, pairs, [*ends, *special])


def _make(
    path: Path, key: str, numbers: Mapping[Any, Any], merges: Sequence[str], special: Sequence[str]
) -> Tokenizer:
    """Return the tokenizer; CheckpointError where it would not do what its merges say."""
    if sorted(numbers.values(), key=str) != sorted(range(len(numbers)), key=str):
        raise refused(path, "vocab", "numbers with gaps or twice", "0 to the number of tokens")
    vocabulary = sorted(numbers, key=numbers.__getitem__)
    if vocabulary[-1:] == [PAD]:  # a row left over, which `write_tokenizer` named
        special = [token for token in special if token != PAD]
        vocabulary.pop()
    try:
        tokenizer = BytePairTokenizer(vocabulary, merges, special)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {key}: {error}") from error
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(merges)}
    for merge in merges:
        if len(_merge(merge.replace(" ", ""), ranks)) > 1:
            raise refused(path, "merges", merge, "pairs that earlier merges leave as they are")
    return tokenizer


def _merge(token: str, ranks: Mapping[tuple[str, ...], int]) -> list[str]:
    """Return the parts of `token` after all merges, the first made first.

    An encoder that knows tokens, not merges, gives the same for every text where each token's
    parts are merged to that token.
    """
    parts, none = list(token), len(ranks)
    while len(parts) > 1:
        found = [ranks.get(pair, none) for pair in pairwise(parts)]
        if (lowest := min(found)) == none:
            break
        at = found.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def _find(data: Mapping[str, Any], key: str) -> Any:
    """Return the value at `key`, such as `model.type`; None where there is none."""
    found: Any = data
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _typed(path: Path, key: str, value: Any, kind: type[list[Any]] | type[dict[str, Any]]) -> Any:
    if not isinstance(value, kind):
        raise refused(path, key, value, "a list" if kind is list else "an object")
    return value
