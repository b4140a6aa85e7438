"""Memorisation: how much of what a model writes stands verbatim in its training text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nanogpt2.base.screen.screen import phase, track
from nanogpt2.base.system.files import rounded
from nanogpt2.config.groups import EvaluateConfig
from nanogpt2.decode.ensemble.checkpoints import Trained, tokenizer_of
from nanogpt2.decode.ensemble.ensemble import Model
from nanogpt2.evaluate.parts import texts_of
from nanogpt2.sample.continuing import continue_tokens
from nanogpt2.text.copies.overlap import search_pieces
from nanogpt2.text.copies.windows import character_codes
from nanogpt2.tokens.dataset import load_tokens
from nanogpt2.tokens.normal import normalise
from nanogpt2.tokens.tokenizer import Tokenizer

WINDOW = 50  # characters: a sentence, which chance does not repeat


@dataclass(frozen=True)
class Copies:
    """The longest stretch of each text that stands in a source, and the share of windows."""

    stretches: list[str]
    copied_windows: float  # 0 .. 1, of all windows of 50 characters

    @property
    def lengths(self) -> list[int]:
        """Length of each stretch in characters."""
        return [len(stretch) for stretch in self.stretches]

    def figures(self) -> dict[str, Any]:
        """Return the longest stretch in characters, and the share of windows."""
        return {"longest": max(self.lengths), "copied_windows": rounded(self.copied_windows)}


def check_memorisation(
    checkpoint: Trained, data: str | Path, config: EvaluateConfig
) -> tuple[dict[str, Any], str]:
    """Return figures, and a readable list of the longest stretches that samples copy.

    Each sample goes on from one token of the validation text; what the author wrote there gives
    the figures to compare with, since people repeat phrases too.
    """
    tokenizer = tokenizer_of(checkpoint, Path(data, "tokenizer.json"))
    val, n_tokens = load_tokens(data, "val"), config.memorisation_tokens
    last = max(0, len(val) - 1 - n_tokens)
    starts = np.linspace(0, last, config.memorisation_samples).astype(np.int64)
    with phase("drawing samples"):
        samples = draw_texts(
            checkpoint.model,
            tokenizer,
            [int(token) for token in val[starts]],
            n_tokens=n_tokens,
            temperature=config.memorisation_temperature,
            seed=config.memorisation_seed,
        )
    written = [tokenizer.decode(val[start + 1 : start + 1 + n_tokens]) for start in starts]
    source = texts_of(load_tokens(data, "train"), tokenizer)
    source = track("looking for copies", source, unit="characters", size=len)
    copies, by_people = find_copies([samples, written], source)
    figures = {
        "samples": copies.figures() | {"longest_by_sample": copies.lengths},
        "validation_text": by_people.figures(),
    }
    return figures, list_stretches(copies.stretches)


def draw_texts(
    model: Model,
    tokenizer: Tokenizer,
    starts: Sequence[int],
    *,
    n_tokens: int,
    temperature: float,
    seed: int,
) -> list[str]:
    """Return a text of `n_tokens` drawn after each of the tokens `starts`, which it leaves out."""
    device = model.wte.weight.device
    generator = torch.Generator(device).manual_seed(seed)
    drawn = continue_tokens(
        model,
        torch.tensor(starts, device=device)[:, None],
        n_tokens,
        temperature=temperature,
        n_tokens=tokenizer.size,
        generator=generator,
    )
    return [tokenizer.decode(row) for row in drawn[:, 1:].tolist()]


def find_copies(groups: Sequence[Sequence[str]], source: Iterable[str]) -> list[Copies]:
    """Return of each group of texts what stands verbatim in a source that comes piece by piece.

    Both in one form: what was read is normalised, and so are the texts. Memory is that of a piece
    and of the longest text.
    """
    texts = [normalise(text) for group in groups for text in group]
    search = search_pieces(
        [character_codes(text) for text in texts], map(character_codes, source), WINDOW
    )
    stretches = [
        text[stretch.start : stretch.start + stretch.length]
        for text, stretch in zip(texts, search.stretches, strict=True)
    ]
    copies, start = [], 0
    for group in groups:
        of = slice(start, start + len(group))
        copies.append(Copies(stretches[of], search.share(of)))
        start += len(group)
    return copies


def list_stretches(stretches: Sequence[str]) -> str:
    """Return the stretches under a heading each, the longest first."""
    order = sorted(range(len(stretches)), key=lambda number: -len(stretches[number]))
    parts = ["The longest stretch of each sample that stands verbatim in the training text.\n"]
    for number in order:
        length = len(stretches[number])
        parts.append(f"--- sample {number + 1}: {length} characters ---\n{stretches[number]}\n")
    return "\n".join(parts)


def describe(figures: dict[str, Any]) -> str:
    """Return in a line how much is copied, and how much the validation text shares by itself."""
    samples, written = figures["samples"], figures["validation_text"]
    return (
        f"memorisation: longest copy {samples['longest']} characters"
        f" (validation text: {written['longest']}), {samples['copied_windows']:.1%} of windows of"
        f" {WINDOW} characters (validation text: {written['copied_windows']:.1%})"
    )
