"""The key `init_from`: what it names, checked before a run and written as a model file of ours."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nanogpt2.base.system import files
from nanogpt2.base.system.checksums import write_sealed
from nanogpt2.base.system.errors import CheckpointError, ConfigError, NanoGPT2Error
from nanogpt2.config.config import MODEL_KEYS, SCRATCH, Config, complete

if TYPE_CHECKING:  # torch takes its time, and most runs start from scratch
    from nanogpt2.model.checkpoint import Checkpoint
    from nanogpt2.tokens.tokenizer import Tokenizer

# What check_init relies on.
INIT_KEYS = {"init_from", "tokenizer", "block_size", "freeze", "lora_rank", "corpus"} | {
    *("sample", "sample.prompt", "sample.prompt_file")
}
HUB_NAMES = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
OF_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # owner/name


def check_init(
    config: Config, *, check_tokens: "Callable[[Config, Tokenizer], None] | None" = None
) -> None:
    """Raise NanoGPT2Error with a line for each thing that keeps a run from its `init_from`.

    `check_tokens` looks whether the tokenizer that comes with the weights knows the run's texts.
    """
    if config.init_from == SCRATCH:
        check_scratch(config)
        return
    from nanogpt2.train.finetune.start import check_lora, check_start

    start = open_init(config.init_from)
    check_start(start, config)
    check_lora(start, config)
    if check_tokens and start.tokenizer and config.tokenizer == "from_init":
        check_tokens(config, start.tokenizer)


def check_scratch(config: Config) -> None:
    """Raise ConfigError where `config` asks for what new weights cannot give."""
    lines = []
    if config.tokenizer == "from_init":
        lines.append("tokenizer: found from_init; allowed: another from scratch, such as char")
    if config.lora_rank:  # from a head of zeros no gradient would ever reach the changes
        lines.append(
            f"lora_rank: found {config.lora_rank}; allowed: 0 from scratch: it changes trained"
            " weights, which init_from names"
        )
    if config.freeze:
        from nanogpt2.model.shapes import make_shapes
        from nanogpt2.train.finetune.start import trainable_names

        try:
            trainable_names(make_shapes(config).state_dict(), config.freeze)
        except ConfigError as error:
            lines.append(str(error))
    if lines:
        raise ConfigError("\n".join(lines))


def open_init(init_from: str) -> "Checkpoint":
    """Return the model that the key `init_from` names; CheckpointError that names the key."""
    if not files.exists(init_from):
        brings = init_from in HUB_NAMES or OF_HUB.fullmatch(init_from)
        advice = f"; `python -m nanogpt2 import {init_from}` downloads it" if brings else ""
        raise CheckpointError(f"init_from: {init_from}: no such file or folder{advice}")
    from nanogpt2.exchange.incoming.pretrained import load_pretrained

    try:
        return load_pretrained(init_from)
    except NanoGPT2Error as error:
        raise CheckpointError(f"init_from: {error}") from error


def write_start(init_from: str, model: Path, tokenizer: Path) -> str:
    """Write the model that `init_from` names and its tokenizer; return what it is in a line.

    From scratch the model file is empty and the tokenizer {}. What is written depends on the
    weights and the tokenizer alone, not on the form or the place in which they came.
    """
    if init_from == SCRATCH:
        files.write_bytes(model, b"")
        write_sealed(tokenizer, {})
        return "from scratch: new weights"
    from nanogpt2.exchange.incoming.pretrained import describe
    from nanogpt2.model.checkpoint import hash_weights, save_checkpoint

    start = open_init(init_from)
    weights, shape = start.model.state_dict(), start.model.config.resolved()
    save_checkpoint(
        model,
        weights,
        complete({key: shape[key] for key in MODEL_KEYS}),  # and not how they were trained
        tokenizer=start.tokenizer,
        origin={"weights": hash_weights(weights)},
    )
    write_sealed(tokenizer, start.tokenizer.to_dict() if start.tokenizer else {})
    return describe(init_from, start)
