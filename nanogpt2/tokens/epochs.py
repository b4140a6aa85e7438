"""Epochs: every item once, in an order that is new each time and stands in no list.

The order is a Feistel network over two halves of unequal size with cycle walking (Black & Rogaway
2002, "Ciphers with Arbitrary Finite Domains"); its keys are made as SplitMix64 makes random numbers
(Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators").
"""

import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[np.uint64]  # whose sums and products are modulo 2**64

BLOCK = 4096  # items made at a time, at hardly more cost than a few
ROUNDS = 8  # with 6, neighbours in orders of fewer than 100 items still depend on one another
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio
FIRST, SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
HALF = np.uint64(32)  # bits


def draw_each_once(size: int, first: int, count: int, *, seed: int) -> tuple[Numbers, Numbers]:
    """Return items `first` to `first + count` of endless epochs of `size` items, and their keys.

    Both are (count,). An epoch holds each item from 0 to size - 1 once, in an order of its own; its
    key is a random number, the same for all its items.
    """
    numbers = range(first // BLOCK, (first + count - 1) // BLOCK + 1)
    joined = np.concatenate([_draw_block(size, number, seed) for number in numbers], axis=1)
    begin = first % BLOCK
    items, keys = joined[:, begin : begin + count]
    return items, keys


@lru_cache(maxsize=4)
def _draw_block(size: int, number: int, seed: int) -> Numbers:
    """Return the items and the keys of a block of BLOCK, (2, BLOCK)."""
    epochs, places = np.divmod(np.arange(number * BLOCK, (number + 1) * BLOCK), size)
    keys = mix(mix(np.full(1, seed, np.uint64)) + epochs.astype(np.uint64) * GOLDEN)
    return np.stack([permute(places.astype(np.uint64), size, keys), keys])


def permute(places: Numbers, size: int, keys: Numbers) -> Numbers:
    """Return the items (n,) at `places` (n,), below `size`, of the orders that `keys` (n,) name."""
    items = places.copy()
    round_keys = mix(keys + GOLDEN * np.arange(1, ROUNDS + 1, dtype=np.uint64)[:, None])
    outside = np.arange(len(items))  # of the range: to be moved, and moved on
    while len(outside):
        moved = _encipher(items[outside], size, round_keys[:, outside])
        items[outside] = moved
        outside = outside[moved >= size]
    return items


def _encipher(numbers: Numbers, size: int, round_keys: Numbers) -> Numbers:
    """Return where a permutation of the numbers below `size`, and a few more, takes `numbers`."""
    width = math.isqrt(size - 1) + 1
    moduli = np.uint64(-(-size // width)), np.uint64(width)  # their product is `size` or just above
    halves = list(np.divmod(numbers, moduli[1]))
    for number, key in enumerate(round_keys):
        side = number % 2
        halves[side] = (halves[side] + _scramble(halves[1 - side] ^ key)) % moduli[side]
    result: Numbers = halves[0] * moduli[1] + halves[1]
    return result


def _scramble(numbers: Numbers) -> Numbers:
    """Return 32 bits for each of `numbers`, to which all its bits contribute."""
    numbers = numbers * FIRST
    numbers = (numbers ^ (numbers >> HALF)) * SECOND
    return numbers >> HALF


def mix(numbers: Numbers) -> Numbers:
    """Return SplitMix64's scrambling of `numbers`: a permutation of all numbers of 64 bits."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * FIRST
    numbers = (numbers ^ (numbers >> np.uint64(27))) * SECOND
    return numbers ^ (numbers >> np.uint64(31))
