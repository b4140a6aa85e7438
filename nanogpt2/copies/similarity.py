"""How alike two texts are: the share of 5-grams that both have (Jaccard 1912)."""

from ctypes import byref, c_int64

import numpy as np

from nanogpt2.copies.constants import BASE, GRAM
from nanogpt2.copies.library import find_library
from nanogpt2.copies.windows import Hashes, character_codes, is_black, is_black_table


def similarity(one: str, two: str) -> float:
    """Return the Jaccard similarity (0 .. 1) of the character 5-grams, white space left out."""
    if library := find_library(len(one) + len(two)):
        black, different = is_black_table(), c_int64()
        texts = [character_codes(text) for text in (one, two)]
        sides = [(codes.ctypes.data, codes.itemsize, len(codes)) for codes in texts]
        n_shared = library.count_shared(
            *sides[0], *sides[1], black.ctypes.data, len(black), byref(different)
        )
        if n_shared < 0:
            raise MemoryError
        return float(n_shared / max(1, different.value))
    both = np.sort(np.concatenate([_grams(one), _grams(two)]))
    n_shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return n_shared / max(1, len(both) - n_shared)


def _grams(text: str) -> Hashes:
    """Return the hash of each 5-gram once, sorted."""
    codes = character_codes(text)
    numbers = codes[is_black(codes)].astype(np.uint64)
    size = max(0, len(numbers) - GRAM + 1)
    grams = numbers[:size] * np.uint64(BASE)
    for offset in range(1, GRAM):
        grams += numbers[offset : offset + size]
        grams *= np.uint64(BASE)
    grams.sort()
    kept: Hashes = grams[np.append(True, grams[1:] != grams[:-1])[:size]]
    return kept
