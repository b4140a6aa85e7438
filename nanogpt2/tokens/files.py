"""Tokenizer files of other tools: tokenizer.json, or GPT-2's vocabulary and merges.

Read are GPT-2's byte pair encoding and what is written here, nothing else: a tokenizer that is
nearly one of ours would give other tokens without a word.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from nanogpt2.base.system import files
from nanogpt2.base.system.checksums import read_sealed
from nanogpt2.base.system.errors import CheckpointError, NanoGPT2Error
from nanogpt2.base.system.foreign import or_refuse, read_object, refused
from nanogpt2.tokens.bpe.bpe import END_OF_TEXT, BytePairTokenizer
from nanogpt2.tokens.description import PAD, describe, special_tokens
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer, load_tokenizer

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"
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


def open_tokenizer(path: str | Path) -> Tokenizer:
    """Return the tokenizer in a JSON file or a folder: another tool's, or as `prepare` writes it.

    CheckpointError of one line, led by the key `tokenizer`, where it is none of ours.
    """
    path = Path(path)
    if not files.exists(path):
        raise CheckpointError(f"tokenizer: {path}: no such file or folder")
    try:
        found = read_tokenizer(path) if files.is_folder(path) else _read_file(path)
    except NanoGPT2Error as error:
        raise CheckpointError(f"tokenizer: {error}") from error
    if found is None:
        raise CheckpointError(
            f"tokenizer: {path}: has no tokenizer; allowed: a folder with {TOKENIZER}, or"
            f" {_name_pairs()}"
        )
    return found


def _read_file(path: Path) -> Tokenizer:
    data = read_object(path)
    if "name" in data:  # one of ours
        return load_tokenizer(or_refuse(partial(read_sealed, required=False), path))
    data = _without_extras(path, data)
    return _find_ours(data) or _read_gpt2(path, data)


def _name_pairs() -> str:
    return " or ".join(" with ".join(pair) for pair in PAIRS)


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
        return _read_file(path)
    for vocabulary, merges in PAIRS:
        if all(files.exists(folder / name) for name in (vocabulary, merges)):
            kind = settings.get("tokenizer_class")
            if kind not in GPT2_CLASSES:
                raise refused(folder / SETTINGS, "tokenizer_class", kind, "GPT2Tokenizer")
            return _read_pair(folder, vocabulary, merges)
    if there := [name for name in OTHERS if files.exists(folder / name)]:
        raise CheckpointError(
            f"{folder / there[0]}: no tokenizer that can be read; allowed: {TOKENIZER}, or"
            f" {_name_pairs()}"
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
            if describe(tokenizer, special_tokens(tokenizer, vocab_size)) == data:
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
