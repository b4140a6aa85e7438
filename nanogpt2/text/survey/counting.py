"""A corpus read once, in blocks, and all that is counted meanwhile, in bounded memory."""

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from nanogpt2.base.screen.phase import Phase
from nanogpt2.base.screen.screen import phase
from nanogpt2.text.scan.segments import KEY_CHARACTERS, key_of
from nanogpt2.text.survey.characters import Characters
from nanogpt2.text.survey.faults import CLEANERS, Fault
from nanogpt2.text.survey.lines import Lengths, LineTable
from nanogpt2.text.survey.reading import Document

TOGETHER = 1 << 20  # characters that are counted at a time, of one document or of many


@dataclass
class Source:
    """A file of the corpus, as it was read."""

    path: str
    documents: int = 0
    characters: int = 0
    encoding: str = ""
    problem: str = ""


@dataclass
class Counted:
    """What was counted.

    A place is a character of the corpus: of all its documents, each ended by a newline.
    """

    sources: list[Source] = field(default_factory=list)
    sizes: "array[int]" = field(default_factory=lambda: array("q"))  # characters by document
    keys: "array[int]" = field(default_factory=lambda: array("Q"))  # its hash, by `key_of`
    characters: Characters = field(default_factory=Characters)
    lengths: Lengths = field(default_factory=Lengths)
    table: LineTable = field(default_factory=LineTable)
    faults: list[Fault] = field(default_factory=lambda: [Fault(switch) for switch in CLEANERS])


class Counter:
    """Counts documents as they come, in a `bar` too; `look` is given the text, and where it is."""

    def __init__(self, bar: Phase, look: Callable[[str, int], None] | None) -> None:
        self.counted = Counted()
        self.start = 0  # of the document in the corpus
        self._bar, self._look = bar, look
        self._waiting: list[str] = []
        self._n_waiting = 0
        self._done = 0

    def add(self, document: Document) -> None:
        """Count a document."""
        size, last, head = 0, "\n", ""
        for block in document.blocks:
            self._push(block)
            for fault in self.counted.faults:
                fault.push(block)
            if len(head) < KEY_CHARACTERS:
                head += block[:KEY_CHARACTERS]
            size, last = size + len(block), block[-1:]
        if last != "\n":
            self._push("\n")
            size += 1
        self.start += size
        for fault in self.counted.faults:
            fault.finish(self.start)
        self.counted.sizes.append(size)
        self.counted.keys.append(key_of(head))
        self._describe(document, size)

    def _describe(self, document: Document, size: int) -> None:
        sources = self.counted.sources
        if not sources or sources[-1].path != document.file:
            sources.append(Source(document.file, encoding=document.encoding))
        sources[-1].documents += 1
        sources[-1].characters += size
        sources[-1].problem = document.problem

    def _push(self, text: str) -> None:
        self._waiting.append(text)
        self._n_waiting += len(text)
        if self._n_waiting >= TOGETHER:
            self.flush()

    def flush(self) -> None:
        """Count what waits to be counted together with more."""
        text = "".join(self._waiting)
        self._waiting, self._n_waiting = [], 0
        if not text:
            return
        for part in (self.counted.characters, self.counted.lengths, self.counted.table):
            part.add(text, self._done)
        if self._look is not None:
            self._look(text, self._done)
        self._done += len(text)
        self._bar.reach(self._done)


def count(
    documents: Iterable[Document], *, look: Callable[[str, int], None] | None = None
) -> Counted:
    """Return what is counted in `documents`."""
    with phase("reading", unit="characters") as bar:
        counter = Counter(bar, look)
        for document in documents:
            counter.add(document)
        counter.flush()
    return counter.counted
