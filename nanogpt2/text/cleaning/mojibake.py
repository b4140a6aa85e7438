"""Mojibake: UTF-8 that was read as Windows-1252 or Latin-1, such as Ã© for é, found and undone.

A sequence is taken back where its characters are the bytes of one in UTF-8. As some writing looks
so too, such as a capital before a quotation mark (É»), what could be writing is only mended in a
line that has a sequence which could not.
"""

# ruff: noqa: RUF001 (letters and quotes that look alike are the matter here)

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import cast

import numpy as np

from nanogpt2.text.cleaning.cleaner import Found

MOJIBAKE, CONTROL = "UTF-8 read as Windows-1252", "Windows-1252 read as Latin-1"
# The characters that the bytes 0x80 to 0xff give in Windows-1252; five of them as in Latin-1.
HIGH = "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0x100))
BYTE_OF = {character: 0x80 + at for at, character in enumerate(HIGH)}
BYTE_OF |= {chr(byte): byte for byte in range(0x80, 0xA0)}
RESTS = {*HIGH[:0x40], *map(chr, range(0x80, 0xA0))}
REST = re.escape("".join(sorted(RESTS)))
SEQUENCE = f"[Â-ß][{REST}]|[à-ï][{REST}]{{2}}|[ð-ô][{REST}]{{3}}"
RUN = re.compile(f"(?:{SEQUENCE})+")
PARTS = re.compile(SEQUENCE)
MISREAD = re.compile("[\x80-\x9f]")  # no writing has these: quotes and dashes of Windows-1252
IS_REST = np.zeros(max(map(ord, RESTS)) + 2, dtype=np.bool_)
IS_REST[list(map(ord, RESTS))] = True
# What may well follow a letter in writing.
FOLLOWING = set("\xa0\xad»”“„’‘‚…–—·‹›«ªº°®™¹²³´·¸•¿¡§šžœƒ")
QUOTES = set("“”„»«")  # which stand between a letter and a letter nowhere
LETTERS = re.compile("[À-ſ]")
ROUNDS = 3  # a text can be misread again and again


def find_mojibake(text: str) -> Iterator[Found]:
    """Yield UTF-8 that was read as Windows-1252, and controls that are quotes of Windows-1252."""
    if text.isascii():
        return
    end = 0
    for at in _likely_places(text):
        if at >= end:
            start = text.rfind("\n", end, at) + 1 or end
            newline = text.find("\n", at)
            end = len(text) if newline < 0 else newline + 1
            yield from _find_in_line(text, start, end)


def _likely_places(text: str) -> list[int]:
    """Return where a first byte is followed by another of a sequence, and where controls are."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    first = np.flatnonzero(points - np.uint32(0xC2) <= 0xF4 - 0xC2)  # what is below wraps around
    following = np.append(points, np.uint32(0))[first + 1]
    likely = first[IS_REST[np.minimum(following, len(IS_REST) - 1)]]
    controls = np.flatnonzero(points - np.uint32(0x80) < 0x20)
    return cast(list[int], np.union1d(likely, controls).tolist())


def _find_in_line(text: str, start: int, end: int) -> Iterator[Found]:
    runs = list(RUN.finditer(text, start, end))
    certain = any(map(_is_certain, runs))
    taken = start
    for run in runs if certain else ():
        if (mended := _mend(run[0])) != run[0]:
            yield from _find_misread(text, taken, run.start())
            yield Found(MOJIBAKE, run.start(), run[0], mended)
            taken = run.end()
    yield from _find_misread(text, taken, end)


def _find_misread(text: str, start: int, end: int) -> Iterator[Found]:
    for match in MISREAD.finditer(text, start, end):
        character = HIGH[ord(match[0]) - 0x80]
        if character != match[0]:
            yield Found(CONTROL, match.start(), match[0], character)


@cache
def _mend(run: str) -> str:
    """Return what the sequences of a run were, as often as they were misread."""
    for _ in range(ROUNDS):
        mended = PARTS.sub(lambda part: _read(part[0]), run)
        if mended == run:
            break
        run = mended
    return run


def _read(sequence: str) -> str:
    """Return the character whose bytes a sequence shows, or the sequence where there is none."""
    try:
        character = bytes(map(BYTE_OF.__getitem__, sequence)).decode("utf-8")
    except UnicodeDecodeError:
        return sequence
    return sequence if unicodedata.category(character) in ("Cn", "Co") else character


def _is_certain(run: re.Match[str]) -> bool:
    """Return whether a run can be no writing."""
    before = run.string[max(0, run.start() - 1) : run.start()]
    after = run.string[run.end() : run.end() + 1]
    sequences = [part for part in PARTS.findall(run[0]) if _read(part) != part]
    odd = [part for part in sequences if not set(part[1:]) <= FOLLOWING]
    if len(sequences) > 1 and odd:
        return True
    for part in sequences:
        if part[0] == "Â":  # before a sign that stands for itself
            return not before.isupper()
        if part[0] == "Ã":
            return bool(odd) or not before.isalpha() or before.islower()
        if part[-1] in QUOTES and after.islower():
            return True
        if odd and (len(part) > 2 or LETTERS.match(_read(part))):
            return True
    return False
