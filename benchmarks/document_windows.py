"""Windows that follow documents, beside windows anywhere, with the same seeds.

    python benchmarks/document_windows.py --seeds 3
    python benchmarks/document_windows.py --text tafsir.txt --separator line --block-size 256

Without a text: the speeches of the built-in plays, which an empty line divides. The first 90% is
for training, the rest for validation; tokens are characters. Both ways train the shape of quality's
study `cpu` for the same steps. Each loss is that of every character of the validation text once:
`side by side` from windows of block_size, as `evaluate` reads it, and `alone` with each document by
itself, with nothing before it but the separator.
"""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch
from quality import CPU, EVALUATION_BATCH, train
from torch.nn import functional

from nanogpt2.config.config import get_config
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.evaluate.metrics import summarise
from nanogpt2.experiments.significance import CONFIDENCE, compare
from nanogpt2.model.gpt import GPT
from nanogpt2.text.reading.corpus import read_corpus, split
from nanogpt2.text.reading.shakespeare import shakespeare_text
from nanogpt2.tokens.dataset import TokenDataset
from nanogpt2.tokens.documents import find_documents, lay_out
from nanogpt2.tokens.tokenizer import CharTokenizer

SEPARATORS = {"line": "\n", "empty line": "\n\n"}
MEASURES = "side by side", "alone"
MOST = 1_500_000  # characters of a text that are taken
STEPS, TOKENS = 1000, 2048  # of a step

Tokens = npt.NDArray[np.int64]


def loss_alone(model: GPT, tokens: Tokens, separator: Sequence[int], block_size: int) -> float:
    """Return the mean loss (nats) of all characters of documents, each read by itself."""
    total, count = 0.0, 0
    pieces = sorted(cut_documents(tokens, separator, block_size), key=len)
    model.eval()
    with torch.inference_mode():
        for at in range(0, len(pieces), EVALUATION_BATCH):
            some = [torch.from_numpy(piece) for piece in pieces[at : at + EVALUATION_BATCH]]
            batch = torch.nn.utils.rnn.pad_sequence(some, batch_first=True, padding_value=-1)
            logits, targets = model(batch[:, :-1].clamp(min=0)), batch[:, 1:]
            losses = functional.cross_entropy(
                logits.float().flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum"
            )
            total, count = total + losses.item(), count + int((targets >= 0).sum())
    return total / count


def cut_documents(tokens: Tokens, separator: Sequence[int], block_size: int) -> Iterator[Tokens]:
    """Yield each document with the character before it, a long one in windows side by side."""
    starts = find_documents(tokens.astype(np.uint16), separator)[1:]
    for start, end in zip(starts, [*starts[1:], len(tokens)], strict=True):
        for first in range(start - 1, end - 1, block_size):
            yield tokens[first : min(first + block_size + 1, end)]


def run(text: str, separator: str, sampling: str, seed: int, block_size: int) -> dict[str, float]:
    """Train and return the losses."""
    parts, tokenizer = split(text, val_fraction=0.1, test_fraction=0), CharTokenizer.train(text)
    shape = {"block_size": block_size, "batch_size": TOKENS // block_size, "max_iters": STEPS}
    facts = {"sampling": sampling, "seed": seed, "vocab_size": tokenizer.size, "device": "cpu"}
    config = get_config(CPU | shape | facts)
    between = tokenizer.encode(separator).tolist()
    dataset = TokenDataset(tokenizer.encode(parts["train"]), block_size, separator=between)
    model = train(config, dataset).model
    val = tokenizer.encode(parts["val"])
    totals = evaluate_tokens(model, val, tokenizer, batch_size=EVALUATION_BATCH).totals
    alone = loss_alone(model, val.astype(np.int64), between, block_size)
    return dict(zip(MEASURES, (summarise(totals)["loss"], alone), strict=True))


def describe(text: str, separator: str, block_size: int) -> str:
    """Return in a line what the documents of the training text are, and what their windows cost."""
    tokenizer = CharTokenizer.train(text)
    tokens = tokenizer.encode(split(text, val_fraction=0.1, test_fraction=0)["train"])
    between = tokenizer.encode(separator).tolist()
    lengths = np.diff(find_documents(tokens, between), append=len(tokens))
    return (
        f"{len(text):,} characters, documents of {np.median(lengths):.0f} (median);"
        f" {lay_out(tokens, between, block_size)}"
    )


@click.command()
@click.option("--text", type=click.Path(path_type=Path, exists=True))
@click.option("--separator", type=click.Choice(list(SEPARATORS)), default="empty line")
@click.option("--block-size", type=int, default=128)
@click.option("--seeds", type=int, default=3, help="1, 2, ... so many.")
def main(text: Path | None, separator: str, block_size: int, seeds: int) -> None:
    """Print both losses of both ways, and their differences."""
    content = (read_corpus(text)[0] if text else shakespeare_text())[:MOST]
    click.echo(describe(content, SEPARATORS[separator], block_size))
    found: dict[str, list[dict[str, float]]] = {"epoch": [], "documents": []}
    for seed in range(1, seeds + 1):
        for sampling, losses in found.items():
            losses.append(run(content, SEPARATORS[separator], sampling, seed, block_size))
            click.echo(f"seed {seed}, {sampling}: {losses[-1]}")
    for measure in MEASURES:
        ours, theirs = ([each[measure] for each in found[way]] for way in ("documents", "epoch"))
        means, difference = map(statistics.fmean, (ours, theirs)), compare(ours, theirs)
        click.echo(
            "{}: documents {:.4f}, epoch {:.4f}, ".format(measure, *means)
            + f"difference {difference.mean:+.4f}, {CONFIDENCE:.0%} interval {difference.low:+.4f}"
            f" to {difference.high:+.4f}"
        )


if __name__ == "__main__":
    main()
