"""Export small models to GGUF and let llama.cpp itself read them: the same tokens, the same text?

    mkdir llama && (cd llama && npm install node-llama-cpp)
    python benchmarks/export_llama.py --llama llama

Each model is trained for a moment, since greedy text of a random one hangs on the last bits.
"""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch

from nanogpt2.config.config import get_config
from nanogpt2.exchange.export.gguf_out import export_gguf
from nanogpt2.model.checkpoint import Checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.text.reading.shakespeare import shakespeare_text
from nanogpt2.tokens.bpe.bpe import BytePairTokenizer
from nanogpt2.tokens.dataset import CharDataset
from nanogpt2.tokens.files import read_tokenizer
from nanogpt2.tokens.tokenizer import ByteTokenizer, CharTokenizer, Tokenizer
from nanogpt2.train.trainer import Trainer

RUN = Path(__file__).with_suffix(".mjs")
BEYOND = " Café naïve “quoted” — 日本 🙂.\n"  # letters beyond ASCII, for texts and vocabularies
SHAPE: dict[str, Any] = {
    **{"device": "cpu", "n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 128},
    **{"batch_size": 16, "eval_interval": 10_000, "eval_iters": 1, "save_checkpoint": False},
    **{"learning_rate": 4e-3, "muon_learning_rate": 0.02, "dropout": 0.0},
}
QWEN3 = {"architecture": "modern", "mlp": "swiglu", "logit_softcap": 0.0}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT-2, char": ("char", {}),
    "GPT-2, char, no row left over": ("char", {"vocab_size": None}),
    "GPT-2, byte": ("byte", {}),
    "GPT-2, bpe": ("bpe", {"vocab_size": 600}),
    "GPT-2, no bias, untied head": ("byte", {"bias": False, "tied_head": False}),
    "qwen3 (modern, swiglu, no soft-cap)": ("char", QWEN3),
    "qwen3, tied head, 2 heads of keys": (
        "bpe",
        {**QWEN3, "vocab_size": 600, "n_kv_head": 2, "tied_head": True},
    ),
    "llama (that without QK-norm)": ("char", {**QWEN3, "qk_norm": False}),
    "arcee (relu2, without QK-norm)": ("char", {**QWEN3, "mlp": "relu2", "qk_norm": False}),
}


def train_pairs(text: str, size: int) -> Tokenizer:
    """Return byte pairs of `text`, trained by tokenizers."""
    from tokenizers import Tokenizer as Theirs
    from tokenizers import decoders, models, pre_tokenizers, trainers

    theirs = Theirs(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=alphabet,
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    theirs.train_from_iterator([text], trainer)
    with TemporaryDirectory() as folder:
        theirs.save(str(Path(folder, "tokenizer.json")))
        found = read_tokenizer(folder)
    assert isinstance(found, BytePairTokenizer)
    return found


def train(tokenizer: Tokenizer, text: str, steps: int, knobs: dict[str, Any]) -> GPT:
    """Return a model trained for `steps` on `text`."""
    rows = knobs.get("vocab_size", 256) or tokenizer.size
    config = get_config({**SHAPE, **knobs, "vocab_size": rows, "max_iters": steps})
    model = GPT(config)
    dataset = CharDataset(text, config.block_size, tokenizer)
    Trainer(model, config).train(dataset, dataset)
    return model.eval()


def ask_llama(folder: Path, file: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Return what llama.cpp makes of a job, see export_llama.mjs."""
    done = subprocess.run(
        ["node", str(RUN), str(folder), str(file)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def compare(
    model: GPT, tokenizer: Tokenizer, texts: list[str], folder: Path
) -> tuple[str, dict[str, Any]]:
    """Return the library's name, and how many tokens of texts and of greedy text are the same."""
    length = model.config.block_size
    encoded = [tokenizer.encode(text).tolist() for text in texts]
    prompts = [tokens[at : at + 8] for tokens in encoded for at in (0, 40, 80)]
    with TemporaryDirectory() as place:
        file = Path(place, "model.gguf")
        export = export_gguf(Checkpoint(model, tokenizer, {}), tokenizer, file)
        job = {"texts": texts, "prompts": prompts, "length": length}
        answer = ask_llama(folder.absolute(), file, job)
    same_texts = sum(
        found["tokens"] == tokens and found["text"] == text
        for found, tokens, text in zip(answer["texts"], encoded, texts, strict=True)
    )
    same = total = whole = 0
    for prompt, theirs in zip(prompts, answer["greedy"], strict=True):
        ours = greedy(model, prompt, length, tokenizer.size)
        equal = [a == b for a, b in zip(ours, theirs, strict=True)][len(prompt) :]
        same += [*equal, False].index(False)  # up to the first that is another
        total += len(equal)
        whole += all(equal)
    return answer["library"], {
        "architecture": export.architecture,
        "texts with the same tokens": f"{same_texts} of {len(texts)}",
        "greedy tokens until the first other one": f"{same} of {total}",
        "whole greedy texts": f"{whole} of {len(prompts)}",
    }


def greedy(model: GPT, prompt: list[int], length: int, n_tokens: int) -> list[int]:
    idx = torch.tensor([prompt])
    tokens: list[int] = model.generate(
        idx, length - len(prompt), temperature=0.0, n_tokens=n_tokens
    )[0].tolist()
    return tokens


def rows(llama: Path, steps: int, names: list[str]) -> Iterator[str]:
    text = shakespeare_text()[:400_000] + BEYOND * 20
    tokenizers: dict[str, Tokenizer] = {
        "char": CharTokenizer.train(text),
        "byte": ByteTokenizer(),
        "bpe": train_pairs(text, 600),
    }
    texts = [text[1000:2000], text[200_000:201_000], text[-400:], BEYOND * 4]
    for name in names:
        kind, knobs = MODELS[name]
        start = time.perf_counter()
        model = train(tokenizers[kind], text, steps, knobs)
        library, figures = compare(model, tokenizers[kind], texts, llama)
        seconds = time.perf_counter() - start
        yield f"| {name} | {' | '.join(figures.values())} | {library}, {seconds:.0f} s"


@click.command()
@click.option("--llama", type=Path, required=True, help="Where `npm install node-llama-cpp` ran.")
@click.option("--steps", default=300, show_default=True, help="Of training.")
@click.option("--only", multiple=True, type=click.Choice(list(MODELS)))
def main(llama: Path, steps: int, only: tuple[str, ...]) -> None:
    """Print a row for each model."""
    for row in rows(llama, steps, list(only or MODELS)):
        click.echo(row)


if __name__ == "__main__":
    main()
