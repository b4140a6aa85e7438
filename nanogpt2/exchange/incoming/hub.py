"""Models from the Hugging Face hub: what of a repository a run reads, in a folder."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from nanogpt2.base.screen.phase import Phase
from nanogpt2.base.screen.screen import phase
from nanogpt2.base.system import files
from nanogpt2.base.system.errors import DataError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.exchange.incoming.pretrained import describe, load_pretrained

# Configuration, weights as safetensors, tokenizer; pickles and other frameworks' files stay away.
WANTED = (
    *("config.json", "*.safetensors", "*.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"),
)
INNER = ("errors", "utils")


@contextmanager
def without_bars(bars: Any) -> Iterator[None]:
    """Leave what is shown to us; `bars` is the library's module that has the switch."""
    shown = not bars.are_progress_bars_disabled()
    bars.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bars()


def downloading(name: str, folder: Path) -> AbstractContextManager[Phase]:
    """Show how many bytes of the model `name` are in `folder`."""

    def measure() -> int:
        with suppress(OSError):  # files are renamed meanwhile
            return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return 0

    return phase(f"downloading {name}", unit="B", measure=measure)


def download(name: str, folder: str | Path, *, revision: str | None = None) -> str:
    """Put the model `name`, such as gpt2, into a new folder; return a line about it.

    `revision` is a branch, tag or commit. Raises DataError where it cannot be had, and what
    `load_pretrained` raises; then there is no folder.
    """
    folder, library = files.as_path(folder), import_extra("huggingface_hub", extra="hf")
    # modules that the library has as attributes only once they are imported
    errors, bars = (import_extra(f"huggingface_hub.{each}", extra="hf") for each in INNER)
    if folder.exists():
        raise DataError(f"{folder}: is there already; remove it, or name another with --to")
    lines = []

    def fill(new: Path) -> None:
        try:
            with without_bars(bars), downloading(name, new):
                library.snapshot_download(
                    name, revision=revision, local_dir=new, allow_patterns=[*WANTED]
                )
        except (OSError, ValueError, errors.HfHubHTTPError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(f"{name}: cannot be had from the hub: {reason}") from error
        shutil.rmtree(new / ".cache", ignore_errors=True)  # the library's notes
        lines.append(describe(str(folder), load_pretrained(new)))

    files.replace_folder(folder, fill)
    return lines[0]
