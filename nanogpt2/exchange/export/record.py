"""What an export is and how exact it was found to be: in words, and as export.json beside it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from nanogpt2.base.system import files
from nanogpt2.base.system.checksums import FILES, hash_files, write_sealed
from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.words import name_some
from nanogpt2.exchange.incoming.names import BESIDE, RECORD

MADE_BY = "nanoGPT2"


@dataclass(frozen=True)
class Proof:
    """What another library read in an export, and how near it is to the model."""

    library: str  # and its version
    tokens: int  # whose logits were compared
    largest_difference: float
    largest_logit: float
    greedy_tokens: int  # the most likely one each time, up to the block's end
    greedy_equal: int  # of these; the others are as likely as ours but for the last bits

    def describe(self) -> list[str]:
        """Return the figures in words."""
        return [
            f"{self.library}: logits of {self.tokens} tokens differ by at most"
            f" {self.largest_difference:.1e} of {self.largest_logit:.1f}",
            f"greedy text: {self.greedy_equal} of {self.greedy_tokens} tokens are the same",
        ]


@dataclass(frozen=True)
class Export:
    """An export that was made."""

    format: str
    architecture: str  # by the name that the other side has for it
    notes: list[str]  # what whoever opens it must know
    proof: Proof | None  # None where no other library reads it, or none is installed

    def describe(self) -> list[str]:
        """Return it in words, a line for each fact."""
        found = self.proof.describe() if self.proof else []
        return [f"{self.format}: {self.architecture}", *found, *self.notes]


def write_record(folder: Path, export: Export) -> None:
    """Write what lies in `folder`, with the hash of each file: a damaged export is found by it."""
    hashes = hash_files(folder, [path.name for path in folder.iterdir()])
    record = {"made_by": MADE_BY, **dataclasses.asdict(export), FILES: hashes}
    write_sealed(folder / RECORD, record)


def check_replaceable(folder: Path) -> None:
    """Raise DataError where `folder` is there and holds anything but an export of ours."""
    if not files.exists(folder):
        return
    if not folder.is_dir():
        raise DataError(f"{folder}: is a file; choose the name of a folder")
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return
    record = files.read_json(folder / RECORD) if RECORD in names else {}
    ours = record.get(FILES) if isinstance(record, dict) else None
    if not isinstance(ours, dict) or record.get("made_by") != MADE_BY:
        raise DataError(f"{folder}: is no export of nanoGPT2, so it stays; choose another folder")
    others = [name for name in names if name not in (*ours, RECORD, *BESIDE)]
    if others:
        raise DataError(
            f"{folder}: holds {name_some(others, 2)} beside an export: move that elsewhere first"
        )
