"""Words: what GPT-2's pattern cuts a text into before anything is merged."""

import ctypes
import re
from collections import Counter
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nanogpt2.base.system.errors import DeviceError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.device.compiler import load_library
from nanogpt2.tokens.bpe.arrays import as_utf8

# What GPT-2's pattern cuts, in a form that takes no time quadratic in a run's length.
WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
SPACE = "[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"  # its \s
SOURCE = Path(__file__).with_name("words.c")
WORTH = 1 << 18  # characters of which the words are worth a compiled library
LONG_SPACE = re.compile(SPACE + "{10000,}")


def count_words(text: str) -> Counter[bytes]:
    """Return how often each word stands in `text`, in UTF-8.

    The counts of blocks that `find_cut` cuts add up to those of the whole. A sum holds each
    different word once, so at most the text itself: of English a fiftieth of 5 MB and less of more,
    of a script without spaces nearly all. DataError where the text holds half a surrogate pair;
    ExtraError where neither gigatoken nor regex is there.
    """
    content = as_utf8(text)
    if len(text) >= WORTH and text.isascii() and (library := find_library()):
        return _count_ascii(content, library)
    if gigatoken := find_gigatoken():
        return Counter(gigatoken.pretokenizer(content))
    regex = import_extra("regex", extra="bpe")
    return Counter(word.encode() for word in regex.findall(WORDS, text))


@cache
def find_library() -> ctypes.CDLL | None:
    """Return words.c, which counts ten times as quickly; None where there is no compiler."""
    try:
        library = load_library(SOURCE, threads=False)
    except DeviceError:
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    library.count_words.restype = size
    library.count_words.argtypes = [ctypes.c_char_p, size, *[pointer] * 3]
    return library


def _count_ascii(content: bytes, library: ctypes.CDLL) -> Counter[bytes]:
    columns = np.empty((3, len(content) // 2 + 129), dtype=np.int64)  # 128 words have one byte
    addresses = (column.ctypes.data for column in columns)
    count = library.count_words(content, len(content), *addresses)
    if count < 0:
        raise MemoryError
    words = zip(*columns[:, :count].tolist(), strict=True)
    return Counter({content[start : start + length]: times for start, length, times in words})


def find_gigatoken() -> Any:
    """Return the library that is twenty times as quick as others, or None where it is missing."""
    try:
        return import_module("gigatoken")
    except ModuleNotFoundError:
        return None


def find_cut(text: str) -> int:
    """Return the last place at which `text` can be cut so that its words stay whole; 0 for none.

    What comes after `text` does not matter, so that a text can be read in blocks: the rest after
    the cut is the start of the next. The cut is before a space or newline that a letter or digit
    follows: white space takes its own last character from what comes before it.

    >>> find_cut("the cat sat"), find_cut("the  end\\n"), find_cut("end")
    (7, 4, 0)
    """
    for at in range(len(text) - 2, 0, -1):
        if text[at] in " \n" and text[at + 1].isalnum():
            return at
    return 0


def cut_long_space(text: str) -> list[str]:
    """Return `text` in parts whose words are those of the whole.

    An engine of regular expressions gives up at a long run of white space before a word; the run's
    last character goes with that word, so a cut before it changes nothing.
    """
    runs = [run.end() for run in LONG_SPACE.finditer(text)]
    cuts = [0, *(end - 1 for end in runs if end < len(text)), len(text)]
    return [text[start:end] for start, end in pairwise(cuts)]
