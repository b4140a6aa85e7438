"""Words: what GPT-2's pattern cuts a text into before anything is merged."""

import re
from collections import Counter
from importlib import import_module
from itertools import pairwise
from typing import Any

from nanogpt2.base.extras import import_extra
from nanogpt2.bpe.arrays import as_utf8

# What GPT-2's pattern cuts, in a form that takes no time quadratic in a run's length.
WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
SPACE = "[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"  # its \s
LONG_SPACE = re.compile(SPACE + "{10000,}")


def count_words(text: str) -> Counter[bytes]:
    """Return how often each word stands in `text`, in UTF-8.

    The counts of blocks that `find_cut` cuts add up to those of the whole. A sum holds each
    different word once, so at most the text itself: of English a fiftieth of 5 MB and less of more,
    of a script without spaces nearly all. DataError where the text holds half a surrogate pair;
    ExtraError where neither gigatoken nor regex is there.
    """
    content = as_utf8(text)
    if gigatoken := find_gigatoken():
        return Counter(gigatoken.pretokenizer(content))
    regex = import_extra("regex", extra="bpe")
    return Counter(word.encode() for word in regex.findall(WORDS, text))


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
