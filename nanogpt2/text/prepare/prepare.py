"""Preparation: a corpus of any size becomes one token file a split, its tokenizer, a description.

The corpus is read once, into segments on disk, and encoded from there, so that memory is bounded by
the segments that workers hold. Neither the number of workers nor how the text is cut into segments
changes what is written.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nanogpt2.base.screen.screen import say
from nanogpt2.base.system import files
from nanogpt2.base.system.workers import Workers, count_cores
from nanogpt2.config.groups import CleanConfig
from nanogpt2.text.copies import library
from nanogpt2.text.prepare.needs import SHOWN_FROM, check_disk, estimate
from nanogpt2.text.prepare.work import Work
from nanogpt2.text.reading import corpus
from nanogpt2.text.scan.blocks import BLOCK_BYTES
from nanogpt2.text.scan.recipe import Recipe
from nanogpt2.text.scan.scan import LEAST_BLOCK_BYTES
from nanogpt2.text.scan.sources import Wholes
from nanogpt2.tokens import characters
from nanogpt2.tokens.bpe import words
from nanogpt2.tokens.bpe.bpe import BytePairTokenizer
from nanogpt2.tokens.tokenizer import CharTokenizer


def prepare(
    source: str | Path,
    folder: str | Path,
    *,
    tokenizer: str | Mapping[str, Any],
    vocab_size: int,
    fractions: tuple[float, float],
    block_size: int | None = None,
    split: str = "auto",
    separator: str = "\n",
    text_field: str = "text",
    find_copies: bool = True,
    clean: CleanConfig | None = None,
    workers: int | None = 1,
    block_bytes: int = BLOCK_BYTES,
) -> dict[str, Any]:
    """Read the corpus `source`, write `folder` anew and return its description (dataset.json).

    `tokenizer` is the name of one that is made for the text, or plain data that describes one,
    whatever `vocab_size` is. `fractions` are those of the val and test splits; the schema of
    params.yaml explains what follows them. Work is done in so many `workers`, processes of their
    own where there are several; None takes one for each core where the text is large. Each holds
    some blocks of about `block_bytes`.

    Raises DataError, with `folder` as it was, where the text cannot be used, needs more than
    `vocab_size` tokens or changed while it was read, and, with a `block_size`, where a split is too
    short to be trained on or evaluated.
    """
    clean = clean or CleanConfig()
    recipe = Recipe(
        tokenizer, vocab_size, *fractions, split, separator, text_field, find_copies, clean
    )
    source, folder = Path(source), Path(folder)
    paths = corpus.find_text_files(source)
    needs = estimate(paths, recipe, workers or count_cores())
    count = workers or (count_cores() if needs.text >= SHOWN_FROM else 1)
    passed_over = corpus.count_passed_over(source, but=folder)
    if needs.text >= SHOWN_FROM:
        say(needs.describe())
    if find_copies and needs.text >= library.WORTH and isinstance(fault := library.load(), str):
        say(f"note: {fault}: copies are looked for with numpy, more slowly")
    if needs.text >= SHOWN_FROM:  # loaded before workers are forked
        if tokenizer == BytePairTokenizer.name:
            words.find_library()
        elif tokenizer == CharTokenizer.name:
            characters.load()
    size = max(block_bytes, LEAST_BLOCK_BYTES)
    description: dict[str, Any] = {}

    def fill(new: Path) -> None:
        check_disk(needs, new)
        with tempfile.TemporaryDirectory(dir=new.parent) as aside:
            work = Work(source, paths, recipe, Path(aside), processes, size)
            wholes, scans = Wholes(recipe), []
            for part, scan in zip(work.parts, work.scan(range(len(work.parts))), strict=True):
                wholes.add(part)
                scans.append(scan)
            settled = work.settle(scans)
            results = work.encode(settled.layout, settled.layout.sections, into=new)
            description.update(
                work.merge(
                    *(new, scans, settled, results),
                    wholes=wholes.hashes(),
                    block_size=block_size,
                    passed_over=passed_over,
                )
            )

    with Workers(count) as processes:  # before the folder is locked, which they would keep up
        files.replace_folder(folder, fill)
    return description
