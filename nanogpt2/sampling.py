"""Sampling: texts that go on from a prompt."""

from collections.abc import Sequence
from pathlib import Path

import torch

from nanogpt2 import files
from nanogpt2.config import SampleConfig
from nanogpt2.model import GPT
from nanogpt2.tokenizer import Tokenizer


def sample_texts(model: GPT, tokenizer: Tokenizer, prompt: str, config: SampleConfig) -> list[str]:
    """Return `config.num_samples` texts, each the prompt and what the model drew after it.

    Each sample has a seed of its own, so that it does not depend on how many are drawn. Raises
    DataError where the prompt holds what the tokenizer does not know.
    """
    tokens = tokenizer.encode(prompt).tolist()
    start = tokens or [start_token(tokenizer)]
    device = model.wte.weight.device
    idx = torch.tensor([start], device=device)
    texts = []
    for number in range(config.num_samples):
        drawn = model.generate(
            idx,
            config.max_new_tokens,
            config.temperature,
            config.top_k,
            n_tokens=tokenizer.size,
            generator=torch.Generator(device).manual_seed(config.seed + number),
        )
        texts.append(prompt + tokenizer.decode(drawn[0, len(start) :].tolist()))
    return texts


def start_token(tokenizer: Tokenizer) -> int:
    """Return what an empty prompt starts from: a newline, or token 0 where there is none."""
    newline = [token for token in range(tokenizer.size) if tokenizer.decode([token]) == "\n"]
    return newline[0] if newline else 0


def read_prompt(config: SampleConfig) -> str:
    """Return the prompt: the text of the configuration, or else of its prompt_file."""
    if config.prompt is not None:
        return config.prompt
    return files.read_text(Path(config.prompt_file)).removesuffix("\n")


def write_samples(folder: Path, texts: Sequence[str]) -> None:
    """Write each text to a file of its own in `folder`, anew."""

    def fill(new: Path) -> None:
        for number, text in enumerate(texts, start=1):
            files.write_text(new / f"sample_{number}.txt", text + "\n")

    files.replace_folder(folder, fill)
