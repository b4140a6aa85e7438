"""Encoding in byte pairs: tiktoken says what is right, gigatoken gives the same quickly."""

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from nanogpt2.base.system.errors import warn_once
from nanogpt2.base.system.extras import import_extra
from nanogpt2.base.system.heap import release_memory
from nanogpt2.tokens.bpe.arrays import as_utf8
from nanogpt2.tokens.bpe.words import WORDS, cut_long_space, find_gigatoken

Ranks = npt.NDArray[np.uint32]

LONG = 20_000  # characters, from which on gigatoken is worth its start
FRESH = 2**24  # bytes after which it starts anew, for it remembers every word that it has seen
# Letters and numbers of Unicode 17, and a few beside them, in UTF-8. Gigatoken knows them; tiktoken
# and tokenizers, with Unicode 16, take them for punctuation.
NEWER = re.compile(
    rb"\xe0(?:\xa2\x8f|\xb1\x9c|\xb3\x9c)|\xea\x9f[\x8e\x8f\x92\x94\xb1]"
    rb"|\xf0(?:\x90[\xa5\xbb]|\x91[\xb6\xb7]|\x96[\xba\xbb\xbf]|\x98[\x9f\xb4-\xb7]"
    rb"|\x9e\x9b|\xab\x9c|\xac\xba|[\xb2\xb3])"
)
FIRST_OF_NEWER = (b"\xe0", b"\xea", b"\xf0")  # which most texts lack
PROBE = "It's  a naïve\n\n\ttest: 12²½ 日本 🙂\u200d\x1c\x85\u3000e\u0301 DON'T<|endoftext|> \n"


class Encoder:
    """Texts to the ranks of their tokens: 0 to 255 are `tokens` of one byte, 256 the first merge.

    `tokens` are in printable characters, as GPT-2's files have them, `merges` such as "t h".
    """

    def __init__(
        self, tokens: Sequence[str], merges: Sequence[str], contents: Sequence[bytes]
    ) -> None:
        self._tokens, self._merges, self._contents = tokens, merges, contents
        self._since = 0  # bytes that gigatoken has seen
        self._is_right = False  # whether gigatoken was found to give what tiktoken gives

    def encode(self, text: str) -> Ranks:
        """Return the ranks of the tokens of `text`.

        DataError where it holds half a surrogate pair; ExtraError where tiktoken is missing.
        """
        content = as_utf8(text)
        quick = self._quick if len(text) >= LONG and not has_newer(content) else None
        if quick is None:
            return self._encode_exactly(text)
        self._since += len(content)
        if self._since > FRESH:
            self._since = 0
            del self._quick
        return cast(Ranks, quick.encode(content))

    def _encode_exactly(self, text: str) -> Ranks:
        parts = [self._exact.encode_to_numpy(part) for part in cut_long_space(text)]
        return np.concatenate(parts)

    @cached_property
    def _exact(self) -> Any:
        return self._make_exact()

    def _make_exact(self) -> Any:
        ranks = {content: rank for rank, content in enumerate(self._contents)}
        tiktoken = import_extra("tiktoken", extra="bpe")
        return tiktoken.Encoding("bpe", pat_str=WORDS, mergeable_ranks=ranks, special_tokens={})

    @cached_property
    def _quick(self) -> Any:
        """Gigatoken's tokenizer; None where it is missing, or gives other tokens than tiktoken."""
        gigatoken = find_gigatoken()
        if gigatoken is None:
            return None
        tokenizer = gigatoken.Tokenizer.from_json(self._description)
        if not self._is_right:  # tiktoken's tokenizer is not kept for this: GPT-2's takes 15 MB
            expected = self._make_exact().encode_to_numpy(PROBE)
            self._is_right = np.array_equal(tokenizer.encode(PROBE), expected)
        if not self._is_right:
            warn_once("gigatoken gives other tokens here than tiktoken, which serves in its place")
            return None
        release_memory()  # of which it takes twice as much to begin with
        return tokenizer

    @cached_property
    def _description(self) -> str:
        """What gigatoken reads, a tokenizer.json, and keeps."""
        level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
        model = {
            "type": "BPE",
            "vocab": {token: rank for rank, token in enumerate(self._tokens)},
            "merges": self._merges,
        }
        parts: dict[str, Any] = {"added_tokens": [], "normalizer": None, "post_processor": None}
        return json.dumps({**parts, "pre_tokenizer": level, "decoder": level, "model": model})


def has_newer(content: bytes) -> bool:
    """Return whether the UTF-8 of a text may have letters that not every library knows."""
    return any(byte in content for byte in FIRST_OF_NEWER) and NEWER.search(content) is not None
