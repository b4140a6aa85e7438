"""Memorisation with and without near copies in the training text.

    python benchmarks/memorisation.py --device cuda --seeds 1 2 3

The text is 800,000 characters of the built-in plays, from evenly over all of them, and 200,000 that
are near copies, 20% of the whole: ten passages of 2,000 characters, each of which stands once in
its play and ten times more, between lines at places drawn at random, each copy with another letter
in place of one character in every 90. No verbatim copy is longer than 89 characters, apart from
chance, and none stands in the last 50,000 characters, which are held out from both texts.

`clean.near_copies` keeps and removes them. With each text the same configuration trains for the
same number of steps, by default the default run and the preset small for 1,000 steps. Then each
model writes samples as the stage evaluate draws them, after characters of the held-out text. The
share of their windows of 50 characters that stand verbatim in the training text *with* the copies
is measured for both, and beside it the loss on the held-out text (nats per character).
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from nanogpt2.config.config import Config, get_config, read_values
from nanogpt2.config.groups import CleanConfig
from nanogpt2.evaluate.evaluate import evaluate_tokens
from nanogpt2.evaluate.memorisation import draw_texts, find_copies
from nanogpt2.evaluate.metrics import summarise
from nanogpt2.evaluate.parts import texts_of
from nanogpt2.model.gpt import GPT
from nanogpt2.text.prepare.prepare import prepare
from nanogpt2.text.reading.shakespeare import shakespeare_text
from nanogpt2.tokens.bpe.arrays import TokenArray
from nanogpt2.tokens.dataset import TokenDataset, load_prepared_tokenizer, load_tokens
from nanogpt2.train.step import Stepper

PLAYS, PASSAGE, PASSAGES, COPIES = 800_000, 2_000, 10, 10  # characters, characters, counts
HELD_OUT = 50_000  # characters
STEP = 90  # characters, of which one is changed
LETTERS = "abcdefghijklmnopqrstuvwxyz"
RUNS: dict[str, dict[str, Any]] = {
    "default run": read_values(Path(__file__).parents[1] / "params.yaml")[1],
    "small, 1,000 steps": read_values("small")[1] | {"max_iters": 1000},
}
WAYS = ("keep", "remove")


class Result(NamedTuple):
    """What a model copies, and what it makes of the held-out text."""

    copied: float  # 0 .. 1, of all windows of its samples
    longest: int  # characters
    loss: float


# --- The text ---


def make_text(seed: int) -> str:
    """Return the plays with copies of passages in them, the end without."""
    random = np.random.default_rng(seed)
    plays = take_plays()
    body = len(plays) - HELD_OUT
    slots = random.permutation(body // PASSAGE)[:PASSAGES] * PASSAGE
    passages = [plays[slot : slot + PASSAGE] for slot in slots.tolist()]
    copies = [change(passage, random) for passage in passages for _ in range(COPIES)]
    lines = np.flatnonzero(np.frombuffer(plays[:body].encode(), np.uint8) == ord("\n")) + 1
    places = sorted(random.choice(lines, len(copies), replace=False).tolist())
    order = random.permutation(len(copies)).tolist()
    pieces, before = [], 0
    for place, number in zip(places, order, strict=True):
        pieces += [plays[before:place], copies[number]]
        before = place
    return "".join([*pieces, plays[before:]])


def take_plays(parts: int = 20) -> str:
    """Return `PLAYS` characters in pieces from evenly over all plays."""
    text, size = shakespeare_text(), PLAYS // parts
    return "".join(text[start : start + size] for start in range(0, parts * size * 5, size * 5))


def change(passage: str, random: np.random.Generator) -> str:
    """Return the passage with another letter in place of one character in every `STEP`."""
    characters = list(passage)
    for at in range(int(random.integers(STEP)), len(characters), STEP):
        others = LETTERS.replace(characters[at], "")
        characters[at] = others[random.integers(len(others))]
    return "".join(characters)


def prepare_both(text: str, folder: Path) -> dict[str, Path]:
    """Prepare the text with near copies kept and removed, and return the folders."""
    source = folder / "text.txt"
    source.write_text(text, encoding="utf-8")
    for way in WAYS:
        description = prepare(
            source,
            folder / way,
            tokenizer="char",
            vocab_size=256,
            fractions=(HELD_OUT / len(text), 0),
            split="contiguous",
            clean=CleanConfig(near_copies=way),
        )
        print(f"near_copies: {way}: {description['characters']:,} characters", flush=True)
    return {way: folder / way for way in WAYS}


# --- One run ---


def train(config: Config, tokens: TokenArray) -> GPT:
    """Do all steps on `tokens` and return the model."""
    stepper = Stepper(GPT(config), config)
    stepper.model.train()
    dataset = TokenDataset(np.array(tokens), config.block_size)
    for step in range(config.max_iters):
        stepper.step(dataset, step)
    stepper.ema.keep()
    stepper.synchronize()
    return stepper.model


def measure(config: Config, folders: dict[str, Path], *, samples: int) -> dict[str, Result]:
    """Train on both texts and return what each model copies of the text that has copies."""
    tokenizer = load_prepared_tokenizer(folders["keep"])
    if tokenizer.to_dict() != load_prepared_tokenizer(folders["remove"]).to_dict():
        raise SystemExit("the two texts have other tokens")
    source = load_tokens(folders["keep"], "train")
    held_out = load_tokens(folders["remove"], "val")  # the end of the other's, too
    knobs = config.evaluate
    starts = np.linspace(0, len(held_out) - 1 - knobs.memorisation_tokens, samples).astype(int)
    results = {}
    for way, folder in folders.items():
        model = train(config, load_tokens(folder, "train"))
        texts = draw_texts(
            model,
            tokenizer,
            held_out[starts].tolist(),
            n_tokens=knobs.memorisation_tokens,
            temperature=knobs.memorisation_temperature,
            seed=knobs.memorisation_seed,
        )
        copies = find_copies([texts], texts_of(source, tokenizer))[0]
        totals = evaluate_tokens(model, held_out, tokenizer, batch_size=64).totals
        results[way] = Result(copies.copied_windows, max(copies.lengths), summarise(totals)["loss"])
    return results


def main() -> None:
    """Measure each run with each seed, and print a table and the ratios of the means."""
    options = parse_arguments()
    print(f"torch {torch.__version__}, {options.device}")
    with tempfile.TemporaryDirectory() as aside:
        folders = prepare_both(make_text(0), Path(aside))
        print("| run | seed | kept | removed | times | longest copies | held-out loss |")
        print("|---" * 7 + "|")
        for name in options.run or RUNS:
            shares: dict[str, list[float]] = {way: [] for way in WAYS}
            for seed in options.seeds:
                config = get_config(RUNS[name], seed=seed, device=options.device)
                results = measure(config, folders, samples=options.samples)
                for way, result in results.items():
                    shares[way].append(result.copied)
                print(f"| {name} | {seed} | {describe(*results.values())}", flush=True)
            kept, removed = (statistics.fmean(shares[way]) for way in WAYS)
            print(f"| {name} | mean | {kept:.2%} | {removed:.2%} | {ratio(kept, removed)} | | |")


def describe(kept: Result, removed: Result) -> str:
    """Return the cells of both results."""
    cells = [
        f"{kept.copied:.2%}",
        f"{removed.copied:.2%}",
        ratio(kept.copied, removed.copied),
        f"{kept.longest}, {removed.longest}",
        f"{kept.loss:.4f}, {removed.loss:.4f}",
    ]
    return " | ".join(cells) + " |"


def ratio(kept: float, removed: float) -> str:
    """Return in words how many times as much is copied."""
    return f"{kept / removed:.1f}" if removed else "none left" if kept else "none"


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", choices=RUNS, action="append", help="this one alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--samples", type=int, default=500, help="for each model")
    parser.add_argument("--device", choices=["cpu", "cuda", "mps"], default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
