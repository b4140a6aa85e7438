"""How alike two texts are: the share of 5-grams that both have (Jaccard 1912)."""

from ctypes import byref, c_int64

import numpy as np

from nanogpt2.text.copies.constants import BASE, GRAM, SPREAD
from nanogpt2.text.copies.library import find_library
from nanogpt2.text.copies.windows import Hashes, character_codes, is_black, is_black_table

LONG = 8000  # characters of both texts, of which one 5-gram in four tells enough: within 0.02
QUARTER = 3 << 32  # bits of a hash that are not set in a quarter of them


def similarity(one: str, two: str) -> float:
    """Return the Jaccard similarity (0 .. 1) of the character 5-grams, white space left out.

    That of long texts is an estimate, by a quarter of them that their content chooses.
    """
    left_out = QUARTER if len(one) + len(two) >= LONG else 0
    if library := find_library(len(one) + len(two)):
        black, different = is_black_table(), c_int64()
        texts = [character_codes(text) for text in (one, two)]
        sides = [(codes.ctypes.data, codes.itemsize, len(codes)) for codes in texts]
        n_shared = library.count_shared(
            *sides[0], *sides[1], black.ctypes.data, len(black), left_out, byref(different)
        )
        if n_shared < 0:
            raise MemoryError
        return float(n_shared / max(1, different.value))
    both = np.sort(np.concatenate([_grams(one, left_out), _grams(two, left_out)]))
    n_shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return n_shared / max(1, len(both) - n_shared)


def _grams(text: str, left_out: int) -> Hashes:
    """Return the hash of each 5-gram once, sorted, but for those with a bit of `left_out`."""
    codes = character_codes(text)
    numbers = codes[is_black(codes)].astype(np.uint64)
    size = max(0, len(numbers) - GRAM + 1)
    grams = numbers[:size] * np.uint64(BASE)
    for offset in range(1, GRAM):
        grams += numbers[offset : offset + size]
        grams *= np.uint64(BASE)
    grams *= np.uint64(SPREAD)
    if left_out:
        grams = grams[(grams & np.uint64(left_out)) == 0]
    grams.sort()
    kept: Hashes = grams[np.append(True, grams[1:] != grams[:-1])[: len(grams)]]
    return kept
