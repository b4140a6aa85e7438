"""Training of byte pair encodings: words are counted, then the commonest pair is merged, again.

Sennrich et al. 2016, algorithm 1, on the bytes of the words that GPT-2's pattern cuts.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from nanogpt2.base.system.errors import DataError
from nanogpt2.tokens.bpe.bpe import BYTE_CHARACTERS, BytePairTokenizer
from nanogpt2.tokens.bpe.words import count_words

NUMBERED = sorted(BYTE_CHARACTERS)  # the 256 bytes in the order of GPT-2's vocabulary
MOST_BYTES = 2**22  # of different words: training takes some 60 bytes of memory for each
NO_TOKEN = -1

Places = npt.NDArray[np.int32]


def train_from_texts(
    texts: Iterable[str], vocab_size: int, special: Sequence[str] = ()
) -> BytePairTokenizer:
    """Return the byte pair encoding of `texts`; see `train_from_words`.

    A word may not run from one text into the next: `words.find_cut` cuts a text so. One text and
    the different words of all are in memory; for a large corpus, give a sample of it.
    """
    counts: Counter[bytes] = Counter()
    check_size(vocab_size, special)
    for text in texts:
        counts.update(count_words(text))
    return train_from_words(counts, vocab_size, special)


def train_from_words(
    counts: Mapping[bytes, int], vocab_size: int, special: Sequence[str] = ()
) -> BytePairTokenizer:
    """Return the byte pair encoding of the words in `counts` (UTF-8), of `vocab_size` tokens.

    They are numbered as GPT-2's are: bytes, merges in the order of their making, `special` last.
    There are fewer where no pairs are left. Counts of several texts can be added up before.
    DataError where `vocab_size` has no room for the bytes and `special`.

    >>> train_from_words({b"the": 2, b" the": 1}, 258).merges
    ['h e', 't he']
    """
    check_size(vocab_size, special)
    vocabulary, merges = [*NUMBERED], []
    for first, second in learn_merges(counts, vocab_size - 256 - len(special)):
        merges.append(f"{vocabulary[first]} {vocabulary[second]}")
        vocabulary.append(vocabulary[first] + vocabulary[second])
    return BytePairTokenizer([*vocabulary, *special], merges, special)


def check_size(vocab_size: int, special: Sequence[str]) -> None:
    """Raise DataError where `vocab_size` tokens cannot be all bytes and `special`."""
    if vocab_size < (least := 256 + len(special)):
        tokens = ", ".join(["the 256 bytes", *special])
        raise DataError(
            f"vocab_size: found {vocab_size}; allowed: at least {least} for tokenizer bpe: {tokens}"
        )


def learn_merges(counts: Mapping[bytes, int], most: int) -> Iterator[tuple[int, int]]:
    """Yield the `most` merges of the words in `counts`, fewer where no pairs are left.

    A merge is a pair of numbers: 0 to 255 are bytes as `NUMBERED` has them, 256 the first merge.
    The commonest pair is merged first, of equally common ones that with the lowest numbers: first
    its first, then its second. So neither the order of the words nor how they were counted matters.
    """
    words = _Words(dict(keep_commonest(counts)))
    for number in range(256, 256 + most):
        pair = words.pop_commonest()
        if pair is None:
            return
        words.merge(*pair, number)
        yield pair


def keep_commonest(counts: Mapping[bytes, int]) -> Iterator[tuple[bytes, int]]:
    """Yield the commonest words with their counts, up to 4 MB of words; all of most texts.

    What is left out of a larger text stands in it as rarely as what is kept last.
    """
    if sum(map(len, counts)) <= MOST_BYTES:
        yield from counts.items()
        return
    size = 0
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        size += len(word)
        if size > MOST_BYTES:
            return
        yield word, count


class _Words:
    """The tokens of different words in one row, and where in it each pair of neighbours stands.

    A place is the index of a token's first byte; one more place after all stands for the ends of
    words. Two tokens that become one take the place of the first.
    """

    def __init__(self, counts: Mapping[bytes, int]) -> None:
        numbers = np.zeros(256, dtype=np.int32)
        numbers[[BYTE_CHARACTERS.index(each) for each in NUMBERED]] = np.arange(256)
        lengths = np.fromiter(map(len, counts), np.int64, len(counts))
        ends = np.cumsum(lengths)
        n = int(lengths.sum())
        content = np.frombuffer(b"".join(counts), dtype=np.uint8)
        self.tokens = np.append(numbers[content], np.int32(NO_TOKEN))
        self.left = np.arange(-1, n, dtype=np.int32)
        self.left[ends - lengths] = n
        self.right = np.arange(1, n + 2, dtype=np.int32)
        self.right[ends - 1] = n
        self.weights = np.repeat(np.fromiter(counts.values(), np.int64, len(counts)), lengths)
        self.places: dict[int, Places] = {}
        self.counts: dict[int, int] = {}
        self.heap: list[tuple[int, int]] = []
        first = np.flatnonzero(self.right[:n] < n).astype(np.int32)
        self._add(_keys(self.tokens[first], self.tokens[first + 1]), first, self.weights[first])

    def pop_commonest(self) -> tuple[int, int] | None:
        """Return the pair that stands in the text most often, or None where there is none."""
        while self.heap:
            count, key = heapq.heappop(self.heap)
            now = self.counts.get(key, 0)
            if now == -count:
                return key >> 32, key & 0xFFFFFFFF
            if now:  # some of its places have gone to other pairs since
                heapq.heappush(self.heap, (-now, key))
        return None

    def merge(self, first: int, second: int, number: int) -> None:
        """Put the token `number` in the place of each `first` that `second` follows."""
        tokens, left, right = self.tokens, self.left, self.right
        key = first << 32 | second
        del self.counts[key]
        place = self.places.pop(key)
        place = place[tokens[place] == first]
        place = place[tokens[right[place]] == second]
        if first == second:
            place = _every_other(place, right[place])
        follower = right[place]
        before, after = left[place], right[follower]
        weights = self.weights[place]
        old_after = tokens[after]
        tokens[place], tokens[follower] = number, NO_TOKEN
        right[place], left[after] = after, place
        # A neighbour before that has just gone was the follower of another merge, which has this
        # pair as the one after.
        old_before = tokens[before]
        has_before, has_after = old_before >= 0, old_after >= 0
        left_of, right_of = old_before[has_before], tokens[after[has_after]]
        both = np.concatenate([weights[has_before], weights[has_after]])
        gone = [_keys(left_of, first), _keys(second, old_after[has_after])]
        self._remove(np.concatenate(gone), both)
        new = [_keys(left_of, number), _keys(number, right_of)]
        places = [before[has_before], place[has_after]]
        self._add(np.concatenate(new), np.concatenate(places), both)

    def _remove(self, keys: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]) -> None:
        order = np.argsort(keys)
        found, starts = _group(keys[order])
        if not len(found):
            return
        sums = np.add.reduceat(weights[order], starts)
        for key, count in zip(found.tolist(), sums.tolist(), strict=True):
            now = self.counts.get(key, count) - count
            if now:
                self.counts[key] = now
            else:
                self.counts.pop(key, None)
                self.places.pop(key, None)

    def _add(
        self,
        keys: npt.NDArray[np.int64],
        places: Places,
        weights: npt.NDArray[np.int64],
    ) -> None:
        """Note new pairs: each has a token that was not there before."""
        order = np.argsort(keys, kind="stable")  # places of a pair stay in order
        found, starts = _group(keys[order])
        if not len(found):
            return
        sums = np.add.reduceat(weights[order], starts).tolist()
        names = found.tolist()
        places, ends = places[order], [*starts[1:].tolist(), len(order)]
        for name, start, end in zip(names, starts.tolist(), ends, strict=True):
            self.places[name] = places[start:end]
        self.counts.update(zip(names, sums, strict=True))
        for name, count in zip(names, sums, strict=True):
            heapq.heappush(self.heap, (-count, name))


def _keys(first: Places | int, second: Places | int) -> npt.NDArray[np.int64]:
    """Return a number for each pair; their order is that of the pairs."""
    return np.asarray(first, dtype=np.int64) << 32 | np.asarray(second, dtype=np.int64)


def _group(ordered: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the different values and where each begins."""
    heads = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=heads[1:])
    starts = np.flatnonzero(heads)
    return ordered[starts], starts


def _every_other(places: Places, followers: Places) -> Places:
    """Return the places at which pairs of one token twice are merged: `aaa` has one, the first."""
    starts = np.append(True, places[1:] != followers[:-1])[: len(places)]
    index = np.arange(len(places))
    since = index - np.maximum.accumulate(np.where(starts, index, 0))
    kept: Places = places[since % 2 == 0]
    return kept
