"""Tokenizers' speed on a text: encoding and training, beside tiktoken, tokenizers and rustbpe.

All sides run in one go on the same blocks. Seconds are those of the processor, which other programs
on the machine change least; rustbpe is left out where it is missing.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

from nanogpt2.tokens.bpe.bpe import BytePairTokenizer
from nanogpt2.tokens.bpe.gpt2 import gpt2_tokenizer
from nanogpt2.tokens.bpe.merges import train_from_texts, train_from_words
from nanogpt2.tokens.bpe.words import WORDS, count_words, find_cut
from nanogpt2.tokens.description import describe, special_tokens

Encode = Callable[[str], Sequence[int]]


def find_blocks(path: Path, size: int) -> list[str]:
    """Return the text in blocks of about `size` characters, the last one left out if small."""
    text, blocks = path.read_text(encoding="utf-8"), []
    while len(text) > size / 2:
        cut = find_cut(text[:size]) if len(text) > size else len(text)
        blocks.append(text[:cut])
        text = text[cut:]
    return blocks


def make_encoders(tokenizer: BytePairTokenizer) -> dict[str, Encode]:
    """Return what encodes with each library by its name, ours first."""
    exact = tokenizer._encoder._exact
    words: dict[str, bytes] = {}
    found: dict[str, Encode] = {
        "this library": tokenizer.encode,  # type: ignore[dict-item]
        "tiktoken": exact.encode_to_numpy,
        "tiktoken, words cached": partial(encode_words, exact, words),
    }
    written = json.dumps(describe(tokenizer, special_tokens(tokenizer, tokenizer.size)))
    library = import_module("tokenizers").Tokenizer.from_str(written)
    found["tokenizers"] = lambda text: library.encode(text).ids
    return found


def encode_words(exact: Any, known: dict[str, bytes], text: str) -> Any:
    """Encode word by word, each different word once: a dictionary instead of a library."""
    words = import_module("regex").findall(WORDS, text)
    for word in set(words) - known.keys():
        known[word] = exact.encode_to_numpy(word).tobytes()
    return np.frombuffer(b"".join(map(known.__getitem__, words)), dtype=np.uint32)


def time_encoding(encode: Encode, blocks: list[str], repeats: int) -> tuple[float, float]:
    """Return the seconds of the first block, and the median of all `blocks` after it."""
    began = time.process_time()
    encode(blocks[0])
    first, seconds = time.process_time() - began, []
    for _ in range(repeats):
        began = time.process_time()
        for block in blocks:
            encode(block)
        seconds.append(time.process_time() - began)
    return first, median(seconds)


def work(
    data: dict[str, Any], name: str, blocks: list[str], repeats: int, start: Barrier, out: Any
) -> None:
    """Put the seconds of all blocks in a process of its own, begun once the others are ready."""
    encode = make_encoders(BytePairTokenizer(**data))[name]
    encode(blocks[0])
    start.wait()
    out.put(time_encoding(encode, blocks, repeats)[1])


def time_processes(
    tokenizer: BytePairTokenizer, name: str, blocks: list[str], repeats: int, processes: int
) -> float:
    """Return the seconds in which each of `processes` does all `blocks` beside the others."""
    context = get_context("spawn")
    start, out = context.Barrier(processes), context.SimpleQueue()
    data = {key: value for key, value in tokenizer.to_dict().items() if key != "name"}
    workers = [
        context.Process(target=work, args=(data, name, blocks, repeats, start, out))
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    seconds = [out.get() for _ in workers]
    for worker in workers:
        worker.join()
    return float(mean(seconds))


def compare_encoding(
    name: str, tokenizer: BytePairTokenizer, blocks: list[str], repeats: int
) -> None:
    """Print MB/s of each library in one process and two, and how it compares with tiktoken."""
    size = sum(len(block.encode()) for block in blocks) / 1e6
    print(f"\n{name}, {size:.1f} MB in {len(blocks)} blocks\n")
    print("| | first block | MB/s, one process | beside tiktoken | MB/s, two processes |")
    print("|---" * 5 + "|")
    encoders, speeds, firsts = make_encoders(tokenizer), dict[str, float](), dict[str, float]()
    for each, encode in encoders.items():
        firsts[each], seconds = time_encoding(encode, blocks, repeats)
        speeds[each] = size / seconds
    expected = encoders["tiktoken"](blocks[0])
    for each, encode in encoders.items():
        if each in ("this library", "tokenizers"):
            assert np.array_equal(encode(blocks[0]), tokenizer.encode(blocks[0])), each
        else:
            assert np.array_equal(encode(blocks[0]), expected), each
    for each, speed in speeds.items():
        two = 2 * size / time_processes(tokenizer, each, blocks, repeats, 2)
        cells = f"{firsts[each]:.2f} s | {speed:.1f} | {speed / speeds['tiktoken']:.1f} | {two:.1f}"
        print(f"| {each} | {cells} |", flush=True)


def time_call(function: Callable[[], Any], repeats: int) -> float:
    """Return the median seconds that a call takes."""
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        function()
        seconds.append(time.process_time() - began)
    return median(seconds)


def train_with_tokenizers(blocks: list[str], vocab_size: int) -> list[str]:
    """Return the merges that `tokenizers` learns."""
    library = import_module("tokenizers")
    level = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs = library.Tokenizer(library.models.BPE())
    theirs.pre_tokenizer = level
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=level.alphabet(), show_progress=False
    )
    theirs.train_from_iterator(blocks, trainer)
    return [" ".join(pair) for pair in json.loads(theirs.to_str())["model"]["merges"]]


def train_with_rustbpe(blocks: list[str], vocab_size: int) -> None:
    """Train with rustbpe, whose ties go otherwise."""
    library = import_module("rustbpe")
    library.Tokenizer().train_from_iterator(blocks, vocab_size, pattern=WORDS)


def compare_training(blocks: list[str], sizes: Sequence[int], repeats: int) -> None:
    """Print the seconds of each library for each vocabulary."""
    counts = sum(map(count_words, blocks[1:]), count_words(blocks[0]))
    print(f"\ntraining, {len(counts):,} different words\n")
    print(
        "| tokens | this library | counting alone | tokenizers | rustbpe |\n|---|---|---|---|---|"
    )
    for size in sizes:
        assert train_from_words(counts, size).merges == train_with_tokenizers(blocks, size)
        whole = time_call(lambda size=size: train_from_texts(blocks, size), repeats)  # type: ignore[misc]
        merging = time_call(lambda size=size: train_from_words(counts, size), repeats)  # type: ignore[misc]
        cells = [whole, whole - merging]
        for train in (train_with_tokenizers, train_with_rustbpe):
            try:
                cells.append(time_call(partial(train, blocks, size), repeats))
            except ModuleNotFoundError:
                cells.append(float("nan"))
        print(f"| {size:,} | {' | '.join(f'{cell:.2f} s' for cell in cells)} |", flush=True)


def main() -> None:
    """Compare encoding with GPT-2's vocabulary and a trained one, and training."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--text", type=Path, default="data/shakespeare/shakespeare.txt")
    parser.add_argument("--block", type=int, default=2**22, help="characters")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=[512, 4096, 8192, 32768])
    options = parser.parse_args()
    blocks = find_blocks(options.text, options.block)
    compare_encoding("GPT-2's 50,257 tokens", gpt2_tokenizer(), blocks, options.repeats)
    trained = train_from_texts(blocks, 4096)
    compare_encoding("4,096 tokens learnt from it", trained, blocks, options.repeats)
    compare_training(blocks, options.sizes, options.repeats)


if __name__ == "__main__":
    main()
