"""Scores: how surprising a text is to a model, as a whole and character by character."""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from nanogpt2.base.screen.screen import phase
from nanogpt2.base.system import arguments
from nanogpt2.base.system.errors import DataError
from nanogpt2.decode.ensemble.ensemble import Model
from nanogpt2.evaluate.evaluate import predict_in_memory, windows
from nanogpt2.evaluate.metrics import Totals, summarise
from nanogpt2.model.modes import evaluating
from nanogpt2.sample.stream import TextStream
from nanogpt2.tokens.normal import normalise
from nanogpt2.tokens.tokenizer import Tokenizer

BATCH_SIZE = 32  # windows of block_size tokens read at once
LEVELS = 10  # colours of the page; level n begins at n bits
STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.7 ui-monospace, monospace; max-width: 60em; margin: 2em auto; padding: 0 1em }
i { font-style: normal }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit }
"""


@dataclass(frozen=True)
class Score:
    """A text and how surprising it is; `nats` has one entry a token, of the first None."""

    figures: dict[str, float | int]  # see `summarise`
    tokens: Sequence[int]
    nats: Sequence[float | None]


def score_text(model: Model, tokenizer: Tokenizer, text: str) -> Score:
    """Return the score of `text`, normalised, in windows of block_size as in the evaluate stage.

    Nothing precedes the first token, so it has none. DataError where the text has fewer than two
    tokens or holds what the tokenizer does not know; DeviceError where memory runs out.
    """
    tokens = tokenizer.encode(normalise(arguments.text("text", text)))
    if len(tokens) < 2:
        raise DataError("a text of fewer than 2 tokens cannot be scored")
    if (largest := int(tokens.max())) >= model.config.vocab_size:
        raise DataError(f"the tokenizer gives the token {largest}; the model knows fewer")
    nats: list[float] = []
    correct = 0
    block_size = model.config.block_size
    with evaluating(model), phase("scoring", len(tokens) - 1, "tokens") as bar:
        for batch, _ in windows(tokens, block_size, block_size, BATCH_SIZE):
            losses, right = predict_in_memory(
                model, batch, advice="end what else uses it, or use --device cpu"
            )
            nats += losses.flatten().tolist()
            correct += int(right.sum())
            bar.reach(len(nats))
    totals = Totals(math.fsum(nats), len(nats), correct, tokenizer.count_bytes(tokens[1:]))
    return Score(summarise(totals), tokens.tolist(), [None, *nats])


def surprises(score: Score, tokenizer: Tokenizer) -> Iterator[tuple[str, float | None]]:
    """Yield pieces of the text and their surprise in bits: a character, or all that a token holds.

    A character of several tokens has their sum.
    """
    stream = TextStream(tokenizer, stop=())
    bits: float | None = 0.0
    for token, nats in zip(score.tokens, score.nats, strict=True):
        bits = None if nats is None or bits is None else bits + nats / math.log(2)
        piece = stream.push([token])
        if piece:
            yield piece, bits
            bits = 0.0
    rest = stream.finish()
    if rest:
        yield rest, bits


def write_page(score: Score, tokenizer: Tokenizer, *, title: str) -> str:
    """Return an HTML page of the text, each character coloured by its surprise in bits.

    Neighbours with the same bits share an element, and what took almost none has no element.
    """
    pieces = surprises(score, tokenizer)
    shown = ((piece, "" if bits is None else f"{bits:.1f}") for piece, bits in pieces)
    body = "".join(
        _element("".join(piece for piece, _ in group), bits)
        for bits, group in groupby(shown, key=itemgetter(1))
    )
    legend = " ".join(f"<i title={n}.0> {n} </i>" for n in range(LEVELS + 1))
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}{_colours()}\n</style>\n"
        f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(describe_score(score))}</p>\n"
        f"<p>bits: {legend} or more</p>\n<pre>{body}</pre>\n</html>\n"
    )


def _colours() -> str:
    """Return the colour of each level, of all from the last on, and of whole bits below it."""
    levels = [("i", LEVELS)] + [(f'i[title^="{level}."]', level) for level in range(LEVELS)]
    return "\n".join(
        f"{which} {{ background: rgb(230 60 40 / {level / LEVELS:.0%}) }}"
        for which, level in levels
    )


def _element(text: str, bits: str) -> str:
    """Return `text` in an element whose title, which chooses its colour, is its bits."""
    shown = html.escape(text, quote=False)
    return shown if bits in ("", "0.0") else f"<i title={bits}>{shown}</i>"


def describe_score(score: Score) -> str:
    """Return the figures of `score` in a line."""
    figures = score.figures
    return (
        f"loss {figures['loss']:.4f} nats/token, {figures['bits_per_byte']:.4f} bits/byte,"
        f" perplexity {figures['perplexity']:.3f}, {figures['tokens']:,} tokens,"
        f" {figures['bytes']:,} bytes"
    )
