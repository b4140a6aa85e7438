"""Control characters, and what has no width and is no part of writing.

Terminal colours and overstruck letters go as a whole. Joiners stay in the scripts and pictures that
need them, direction marks in lines with letters that run right to left.
"""

import re
from collections.abc import Iterator

from nanogpt2.text.cleaning.cleaner import Found

# Characters of one byte that are writing; all others are controls.
WRITING = bytes([0x09, 0x0A, *range(0x20, 0x7F)])
KINDS = {
    "control character": "\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff",
    "soft hyphen": "\xad",
    "zero-width character": "\u180e\u200b-\u200d\u2060",
    "direction mark": "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069",
    "byte order mark": "\ufeff",
    "invisible character": "\u2061-\u2065\u206a-\u206f\ufff9-\ufffc\U000e0000-\U000e0fff",
}
KIND_OF = {kind: re.compile(f"[{characters}]") for kind, characters in KINDS.items()}
FLAG = "\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f"  # of a part of a country, by invisible tags
TERMINAL = r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\n]{0,200}(?:\x07|\x1b\\)|[@-Z\\^_])"
OVERSTRUCK = r"_\x08(?=[^\n\x08])|(?<=(.))\x08\1"  # bold and underlined, as on a typewriter
# Selectors of forms of a character are writing: VS17 to VS256 stand among the invisible ones.
SELECTORS = "\U000e0100-\U000e01ef"
CONTROLS = re.compile(
    f"{FLAG}|{TERMINAL}|{OVERSTRUCK}|(?![{SELECTORS}])[{''.join(KINDS.values())}]"
)
SUSPECT = re.compile(f"[{''.join(KINDS.values())}]")

# Scripts in which words are parted, or letters joined or kept apart, by characters without width.
UNSPACED = re.compile("[\u0e00-\u109f\u1780-\u17ff\u1900-\u1aaf]")
JOINING = re.compile(
    "[\u0600-\u109f\u1780-\u18af\u1900-\u1cff\ua840-\uabff\ufb50-\ufdff\ufe70-\ufefc"
    "\U00010a00-\U00011fff\U0001e900-\U0001e95f]"
)
PICTURE = re.compile("[\u2190-\u2bff\ufe0f\u20e3\U0001f000-\U0001faff]")
RIGHT_TO_LEFT = re.compile("[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff]")


def find_controls(text: str) -> Iterator[Found]:
    """Yield the control characters, and what has no width and is no part of writing.

    Joiners stay in the scripts and pictures that need them, direction marks in lines with letters
    that run right to left. A form feed between words becomes a newline. Terminal colours and
    overstruck letters go as a whole.
    """
    if text.isascii() and not text.encode("ascii").translate(None, WRITING):
        return
    if SUSPECT.search(text) is None:
        return
    lines = _Lines(text)
    for match in CONTROLS.finditer(text):
        if found := _judge(match, text, lines):
            yield found


class _Lines:
    """Whether the line around a place has letters that run right to left; places rise."""

    def __init__(self, text: str) -> None:
        self.text, self.end, self.answer = text, -1, False

    def runs_left(self, at: int) -> bool:
        if at > self.end:
            start = self.text.rfind("\n", max(0, self.end), at) + 1
            newline = self.text.find("\n", at)
            self.end = len(self.text) if newline < 0 else newline
            self.answer = RIGHT_TO_LEFT.search(self.text, start, self.end) is not None
        return self.answer


def _judge(match: re.Match[str], text: str, lines: _Lines) -> Found | None:
    """Return what becomes of a character or sequence, None where it is part of the writing."""
    old, start = match[0], match.start()
    if len(old) > 1:
        kind = "terminal sequence" if old[0] == "\x1b" else "overstruck letter"
        return None if old[0] == "\U0001f3f4" else Found(kind, start, old)
    kind = next(kind for kind, pattern in KIND_OF.items() if pattern.match(old))
    before, after = text[start - 1 : start] if start else "", text[start + 1 : start + 2]
    if kind == "zero-width character" and _is_needed(old, before, after):
        return None
    if old in "\u061c\u200e\u200f" and lines.runs_left(start):
        return None
    parts = old in "\x0b\x0c" and not before.isspace() and not after.isspace()
    return Found(kind, start, old, "\n" if parts and before and after else "")


def _is_needed(mark: str, before: str, after: str) -> bool:
    """Return whether a character without width does something between its neighbours."""
    if mark == "\u200b":
        return bool(UNSPACED.match(before) or UNSPACED.match(after))
    if mark == "\u180e":
        return "\u1800" <= before <= "\u18af"
    if mark == "\u200d" and PICTURE.match(before):
        return PICTURE.match(after) is not None
    return mark != "\u2060" and JOINING.match(before) is not None
