"""Characters of a corpus: how often each stands in it, where first, and in which script."""

import unicodedata
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

POINTS = 0x110000
CHUNK = 1 << 15
# The first word of a character's name in Unicode, where that does not tell the script by itself.
SCRIPTS = {
    "CJK": "Chinese characters", "IDEOGRAPHIC": "Chinese characters", "HANGUL": "Hangul",
    "KATAKANA-HIRAGANA": "Katakana", "HALFWIDTH": "Katakana", "FULLWIDTH": "Latin",
    "MODIFIER": "Modifiers", "FEMININE": "Latin", "MASCULINE": "Latin",
}  # fmt: skip
ANY_SCRIPT = {"COMBINING", "VARIATION", "MUSICAL"}  # marks that no script has alone
KINDS = {"Z": "Spaces", "N": "Digits", "P": "Punctuation", "S": "Symbols", "M": "Marks"}
ODD = {
    "Cc": "control", "Cf": "invisible", "Cn": "unassigned", "Co": "private use",
    "Cs": "not in the encoding",
}  # fmt: skip
RARE_LETTERS = 0.001  # share of all letters below which a script is odd in a text
RARE = 10  # times below which a model hardly learns a character


@dataclass(frozen=True)
class Kind:
    """A character: how often it stands in the corpus, and the first place, by character."""

    character: str
    count: int
    first: int

    @property
    def code(self) -> str:
        """U+ and its number."""
        return f"U+{ord(self.character):04X}"

    @property
    def name(self) -> str:
        """Its name in Unicode, of one without a name its category."""
        unnamed = ODD.get(unicodedata.category(self.character), "")
        return unicodedata.name(self.character, unnamed)


class Characters:
    """Counts of characters, and where each first stands."""

    def __init__(self) -> None:
        self.counts = np.zeros(POINTS, dtype=np.int64)
        self.first = np.full(POINTS, -1, dtype=np.int64)

    def add(self, text: str, start: int) -> None:
        """Count `text`, which begins at the character `start` of the corpus."""
        if text.isascii():
            points = np.frombuffer(text.encode("ascii"), dtype=np.uint8)
        else:
            points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        counts = _count(points)
        new = (counts > 0) & (self.counts[: len(counts)] == 0)
        if new.any():
            places = np.flatnonzero(new[points])
            found, index = np.unique(points[places], return_index=True)
            self.first[found] = places[index] + start
        self.counts[: len(counts)] += counts

    @property
    def total(self) -> int:
        """Number of characters."""
        return int(self.counts.sum())

    @property
    def bytes(self) -> int:
        """Number of bytes of UTF-8."""
        bounds = (0, 0x80, 0x800, 0x10000, POINTS)
        parts = enumerate(pairwise(bounds), 1)
        return sum(int(self.counts[start:end].sum()) * size for size, (start, end) in parts)

    def kinds(self) -> list[Kind]:
        """Return each character that there is, the commonest first."""
        there = np.flatnonzero(self.counts)
        order = there[np.argsort(-self.counts[there], kind="stable")].tolist()
        return [Kind(chr(at), int(self.counts[at]), int(self.first[at])) for at in order]


def _count(points: npt.NDArray[np.uint8] | npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Return how often each number is in `points`: those of bytes in pieces that stay cached."""
    if points.dtype != np.uint8:
        return np.bincount(points)
    counts = np.zeros(256, dtype=np.int64)
    for at in range(0, len(points), CHUNK):
        counts += np.bincount(points[at : at + CHUNK], minlength=256)
    return counts


def count_scripts(kinds: list[Kind]) -> dict[str, int]:
    """Return how many characters are of each script, or of each kind that is no letters."""
    scripts: Counter[str] = Counter()
    for kind in kinds:
        scripts[script_of(kind.character)] += kind.count
    return dict(scripts.most_common())


@cache
def script_of(character: str) -> str:
    r"""Return the script of a letter or of a script's own mark, such as Latin; else its kind.

    >>> script_of("é"), script_of("я"), script_of("中"), script_of("7")
    ('Latin', 'Cyrillic', 'Chinese characters', 'Digits')
    >>> script_of("\N{DEVANAGARI VOWEL SIGN I}"), script_of("\N{COMBINING ACUTE ACCENT}")
    ('Devanagari', 'Marks')
    """
    category = unicodedata.category(character)
    first = unicodedata.name(character, "other").split(" ")[0]
    if category[0] == "L" or (category[0] == "M" and first not in ANY_SCRIPT):
        return SCRIPTS.get(first, first.split("-")[0].capitalize())
    if character in "\n\t":
        return "Spaces"
    return KINDS.get(category[0], "Controls, invisible, unassigned")


def is_odd(character: str) -> bool:
    """Return whether a character is no writing by itself: a control, private, unassigned."""
    return character not in "\n\t" and unicodedata.category(character) in ODD


def find_unusual(kinds: list[Kind]) -> dict[str, str]:
    """Return the characters that stand out, and why: odd ones, and letters of another script.

    U+FFFD is what another program has put for something that it could not read.
    """
    letters = count_scripts([kind for kind in kinds if kind.character.isalpha()])
    total = max(1, sum(letters.values()))
    unusual = {}
    for character in (kind.character for kind in kinds):
        if is_odd(character):
            unusual[character] = ODD[unicodedata.category(character)]
        elif character == "\ufffd":
            unusual[character] = "lost"
        elif character.isalpha() and letters[script_of(character)] < RARE_LETTERS * total:
            unusual[character] = "rare script"
    return unusual
