"""Licences: what Project Gutenberg, Wikipedia and programmers put around a text."""

import re
from collections.abc import Iterator

from nanogpt2.text.cleaning.cleaner import Cleaner, Found, Say

HEAD = 40_000  # characters of a document in which what stands before its text ends
FOOT = 40_000  # and of what follows it: Gutenberg's licence has about 19,000
HEADER, FOOTER = "header of Project Gutenberg", "footer of Project Gutenberg"
COMMENT, NOTE = "licence in a comment", "line about a licence"

# Lines with the stars of today, over three lines where a title is long, and the small print of old.
START = re.compile(
    r"^\*\*\* ?START OF (?:THE|THIS) PROJECT GUTENBERG[^*\n]*(?:\n[^*\n]+){0,2}\*\*\*[^\n]*\n*"
    r"|^\*END\*? ?THE SMALL PRINT![^\n]*\*END\*[^\n]*\n*",
    re.MULTILINE,
)
END = re.compile(
    r"^\*\*\* ?END OF (?:THE|THIS) PROJECT GUTENBERG"
    r"|^End of (?:the |this )?Project Gutenberg(?:'s|\u2019s| E)",
    re.MULTILINE,
)
GUTENBERG = ("Gutenberg", "GUTENBERG")  # many times as quickly looked for as a pattern

WORDS = ("License", "Permission", "Redistribution")
PHRASES = re.compile(
    "Permission is hereby granted|Licensed under the Apache|Apache License, Version"
    "|GNU (?:Lesser |Affero |Library )?General Public|Redistribution and use in"
    "|Mozilla Public License|SPDX-License-Identifier"
)
COMMENTS = re.compile(
    r"^[ \t]*/\*(?:[^*]|\*(?!/))*+\*/[ \t]*\n*"
    r"|^<!--(?:[^-]|-(?!->))*+-->[ \t]*\n*"
    r"|(?:^[ \t]*#(?![!\w])[^\n]*\n){2,}\n*"  # and no #include or #pragma
    r"|(?:^[ \t]*//[^\n]*\n){2,}\n*|(?:^[ \t]*--[^\n]*\n){2,}\n*"
    r"|(?:^[ \t]*;[^\n]*\n){2,}\n*|(?:^[ \t]*%[^\n]*\n){2,}\n*"
    r"|^[ \t]*(?:#|//) ?SPDX-License-Identifier[^\n]*\n",
    re.MULTILINE,
)
BREAKS = re.compile(r"\n[ \t]*(?:[*#;%]+|//|--)?[ \t]*")  # and what begins a comment's line

NOTES = re.compile(
    r"^(?:Text is available under the Creative Commons Attribution"
    r"|Content is available under (?:CC |Creative Commons )"
    r"|This article uses material from the Wikipedia"
    r"|This article is licensed under the GNU Free Documentation"
    r"|Retrieved from [\"“]?https?://[a-z.-]*wiki)[^\n]*\n?",
    re.MULTILINE,
)
NOTED = ("Creative Commons", "CC BY", "GNU Free Documentation", "from the Wikipedia", "Retrieved f")


def find_notes(text: str) -> Iterator[Found]:
    """Yield lines that a page of a wiki ends with: the licence, and where it came from."""
    if any(words in text for words in NOTED):
        yield from (Found(NOTE, each.start(), each[0]) for each in NOTES.finditer(text))


def find_heads(text: str) -> Iterator[Found]:
    """Yield what stands before the text of a document, given the beginning of one."""
    named = any(name in text for name in GUTENBERG)
    if named and (starts := list(START.finditer(text, 0, _find_end(text)))):
        yield Found(HEADER, 0, text[: starts[-1].end()])
    elif any(word in text for word in WORDS):
        for comment in COMMENTS.finditer(text):
            if PHRASES.search(BREAKS.sub(" ", comment[0])):
                yield Found(COMMENT, comment.start(), comment[0])


def _find_end(text: str) -> int:
    """Return where a footer begins in `text`; its length where none does."""
    end = END.search(text) if any(name in text for name in GUTENBERG) else None
    return end.start() if end else len(text)


class Licences(Cleaner):
    """Takes out headers, footers, comments and lines that are surely about a licence.

    A header ends, and a comment stands, in the first `HEAD` characters of a document; a footer is
    at most `FOOT` long, and what follows it is the end, or another header, where files were joined.
    It keeps back as much of a document as it takes to know.
    """

    def __init__(self, say: Say | None = None) -> None:
        super().__init__(find_notes, say)
        self._kept = ""  # of the document, from the character `_start` on
        self._at_head = True
        self._in_foot = False  # what is kept begins with the first line of a footer

    def push(self, block: str) -> str:
        """Return what of the document, with `block` at its end, is known to be text."""
        self._kept += block
        return "".join(self._take(ended=False))

    def finish(self) -> str:
        """Return the rest of the document, and be ready for the next."""
        rest = "".join(self._take(ended=True))
        super().finish()
        self._at_head, self._in_foot = True, False
        return rest

    def _take(self, *, ended: bool) -> Iterator[str]:
        """Yield what can be told by now, as far as the document is known."""
        while self._kept:
            if self._at_head:
                if not ended and len(self._kept) < HEAD:
                    return
                yield from self._pass_head()
            elif self._in_foot:
                if not ended and len(self._kept) <= FOOT:
                    return
                yield from self._pass_foot()
            else:
                end = _find_end(self._kept)
                self._in_foot = end < len(self._kept)
                yield self._emit(end)

    def _pass_head(self) -> Iterator[str]:
        self._at_head = False
        for found in find_heads(self._kept[:HEAD]):
            yield self._emit(found.start - self._start)
            self._drop(found.kind, len(found.old))

    def _pass_foot(self) -> Iterator[str]:
        self._in_foot = False
        following = START.search(self._kept, 0, FOOT)
        if following is not None:
            self._drop(FOOTER, following.end())
        elif len(self._kept) <= FOOT:
            self._drop(FOOTER, len(self._kept))
        else:  # a line that only looks like the first of a footer
            yield self._emit(self._kept.find("\n") + 1 or len(self._kept))

    def _emit(self, size: int) -> str:
        """Return the first `size` characters of what is kept, cleaned, and go on after them."""
        text, self._kept = self._kept[:size], self._kept[size:]
        cleaned = self._replace(text, self._start)
        self._start += size
        return cleaned

    def _drop(self, kind: str, size: int) -> None:
        self._note(Found(kind, 0, self._kept[:size]), self._start)
        self._kept = self._kept[size:]
        self._start += size
