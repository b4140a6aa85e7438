"""Blocks: a text of any size, read piece by piece, cut only where no token crosses.

A cut comes after a line end between two characters that are no white space; where a text has no
such line end, before the space between two words, or after the full stop of a sentence in Chinese
or Japanese. There GPT-2's pattern ends a word too, and Unicode's form NFC joins nothing, so that
what is made of the blocks is what would be made of the whole.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nanogpt2.base.system.errors import DataError
from nanogpt2.config.yaml12 import printable

BLOCK_BYTES = 1 << 21
LONGEST_UNCUT = 1 << 26  # bytes without a place to cut: more than any text has, and memory bears
NEAR = 1 << 16  # bytes around a wished place, searched first
LINE_END = re.compile(rb"[\x21-\x7e\x80-\xbf]\r?\n(?=[\x21-\x7e\xc2-\xf4])")
OTHER_CUTS = re.compile(rb"[A-Za-z](?= [A-Za-z])|(?:\xe3\x80\x82|\xef\xbc\x8c)(?=[\xe5-\xe9])")
MOST_OF_CHARACTER = 4  # bytes of UTF-8
MOST_OF_CUT = 3  # bytes that the patterns above take before a cut
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Span:
    """Bytes `start` to `end` of a file, where blocks may begin and end; None is its end."""

    start: int
    end: int | None


def plan_spans(path: Path, size: int, span_bytes: int) -> list[Span]:
    """Return spans of about `span_bytes` that make up a plain text of `size` bytes.

    Where the text has no place to cut, a span is longer.
    """
    cuts = [0]
    with path.open("rb") as file:
        while size - cuts[-1] > 1.5 * span_bytes:
            found = _next_cut(file, cuts[-1] + span_bytes, size)
            if found is None:
                break
            cuts.append(found)
    return [Span(*pair) for pair in zip(cuts, [*cuts[1:], None], strict=True)]


def _next_cut(file: BinaryIO, start: int, size: int) -> int | None:
    """Return the first cut at or after `start`, as far as it is looked for, or None."""
    before = max(0, start - NEAR)
    for width in (2 * NEAR, LONGEST_UNCUT):
        file.seek(before)
        content = file.read(width)
        for cut in find_cuts(content, start - before):
            return before + cut if before + cut < size else None
    return None


def find_cuts(content: bytes, start: int = 0) -> Iterator[int]:
    """Yield the places in UTF-8 text, in order from `start` on, where it may be cut.

    Each is the start of a block.
    """
    found = False
    for match in LINE_END.finditer(content, max(0, start - MOST_OF_CUT)):
        if match.end() >= start and _is_cut(content, match.start(), match.end()):
            found = True
            yield match.end()
    if not found:
        cuts = OTHER_CUTS.finditer(content, max(0, start - MOST_OF_CUT))
        yield from (match.end() for match in cuts if match.end() >= start)


def last_cut(content: bytes) -> int | None:
    """Return the last place where `content` may be cut, or None where there is none."""
    for width in (1 << 12, NEAR, len(content)):
        start = max(0, len(content) - width)
        if cuts := list(find_cuts(content[start:])):
            return start + cuts[-1]
    return None


def _is_cut(content: bytes, last: int, following: int) -> bool:
    """Return whether no white space stands beside a line end.

    `last` is the last byte of the character before it, `following` the first of that after it.
    """
    before = content[max(0, last + 1 - MOST_OF_CHARACTER) : last + 1].decode("utf-8", "replace")
    after = content[following : following + MOST_OF_CHARACTER].decode("utf-8", "replace")
    return not (before[-1].isspace() or after[0].isspace() or after[0] == BYTE_ORDER_MARK)


def read_blocks(
    file: BinaryIO, path: Path, *, size: int | None, block_bytes: int
) -> Iterator[bytes]:
    """Yield the next `size` bytes of a text, or all that is left, in blocks of about `block_bytes`.

    DataError, naming `path`, where 64 MB of it have no place to cut.
    """
    waiting, left = b"", size
    while content := file.read(block_bytes if left is None else min(block_bytes, left)):
        left = None if left is None else left - len(content)
        waiting += content
        if cut := last_cut(waiting):
            yield waiting[:cut]
            waiting = waiting[cut:]
        elif len(waiting) > LONGEST_UNCUT:
            raise DataError(
                printable(
                    f"{path}: {LONGEST_UNCUT >> 20} MB without a line end or a space between words;"
                    " put line ends into it"
                )
            )
    if waiting:
        yield waiting
