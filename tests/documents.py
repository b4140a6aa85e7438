"""The documents: their blocks of code, as a reader takes them from a page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imports import ROOT

DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"(?ms)^```(?P<language>\w*)\n(?P<text>.*?)^```$|^#+ (?P<heading>.+?)$")
SHELL = ("sh", "bash")


@dataclass(frozen=True)
class Block:
    """A block of a page: `heading` is the one that it stands under."""

    page: str
    heading: str
    language: str
    text: str

    def commands(self) -> list[str]:
        """Return the commands of a shell's block, one a line, without what `#` says of them."""
        whole = re.sub(r"\s*\\\n\s*", " ", self.text)
        lines = [re.sub(r"\s+#.*$|^#.*$", "", line) for line in whole.splitlines()]
        return [line for line in lines if line.strip()]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of the document `page`, such as docs/data.md, in order."""
    heading = ""
    for found in FENCE.finditer((ROOT / page).read_text(encoding="utf-8")):
        heading = found["heading"] or heading
        if found["text"] is not None:
            yield Block(page, heading, found["language"], found["text"])
