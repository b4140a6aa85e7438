"""Starting from trained weights: what of them fits the tokens and positions of a run."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nanogpt2.base.system import files
from nanogpt2.base.system.errors import CheckpointError, ConfigError
from nanogpt2.base.system.words import name_some
from nanogpt2.config.config import SCRATCH, Config, get_config
from nanogpt2.model.checkpoint import Checkpoint, load_checkpoint
from nanogpt2.model.gpt import GPT
from nanogpt2.model.shapes import make_shapes
from nanogpt2.tokens.dataset import load_prepared_tokenizer
from nanogpt2.tokens.tokenizer import ByteTokenizer, Tokenizer, check_vocab_size

# What the weights decide. block_size, dropout and all that is not the model is the run's.
SHAPE_KEYS = (
    *("n_layer", "n_head", "n_kv_head", "n_embd", "bias", "positions", "norm", "qk_norm", "mlp"),
    *("mlp_conv", "tied_head", "logit_softcap"),
)


@dataclass(frozen=True)
class Start:
    """A model to train, and in words what it has of the weights that it starts from."""

    model: GPT
    notes: list[str] = field(default_factory=list)
    origin: dict[str, Any] = field(default_factory=dict)  # the SHA-256 of the weights

    @property
    def config(self) -> Config:
        """The configuration to train with."""
        return self.model.config


def make_model(config: Config, init: str | Path, data: str | Path) -> Start:
    """Return the model to train as `config` has it, on the prepared folder `data`.

    With `init_from` it starts from the model file `init`, which the stage init wrote.
    """
    if config.init_from == SCRATCH:
        return Start(GPT(config))
    if not files.exists(init):
        raise CheckpointError(f"{init}: no such file; `python -m stages.init` makes it")
    start = load_checkpoint(init, device="cpu")
    made = start_from(start, config, load_prepared_tokenizer(data))
    return replace(made, origin={"init": start.origin.get("weights", "")})


def start_from(start: Checkpoint, config: Config, tokenizer: Tokenizer | None = None) -> Start:
    """Return a model with the weights of `start` for a run of `config` on tokens of `tokenizer`.

    The shape is that of the weights; learned positions are cropped to block_size. With another
    tokenizer than theirs the rows of tokens that both know are kept, and the rest start at the mean
    of those rows and a draw. Raises ConfigError where `config` asks for what the weights lack, and
    DataError where its vocab_size is below the tokens.
    """
    check_start(start, config)
    rows = None if tokenizer is None else match_rows(start.tokenizer, tokenizer)
    if rows is not None:
        check_vocab_size(config.vocab_size, len(rows))
    size = start.model.config.vocab_size if rows is None else config.vocab_size
    adapted = with_shape_of(start.model.config, config, vocab_size=size)
    model = GPT(adapted)
    weights = dict(start.model.state_dict())
    if "wpe.weight" in weights:
        weights["wpe.weight"] = weights["wpe.weight"][: adapted.block_size]
    notes = describe_shape(config, adapted)
    if rows is not None:
        own = model.state_dict()
        for name in ("wte.weight", "lm_head.weight"):
            if name in weights:
                weights[name] = take_rows(weights[name], rows, own[name])
        notes.append(describe_rows(rows, start.tokenizer))
        if -1 in rows:
            check_new_rows(config, notes[-1])
    model.load_state_dict(weights)
    return Start(model, notes)


def check_start(start: Checkpoint, config: Config) -> None:
    """Raise ConfigError where `config` asks for what the weights of `start` lack."""
    found, lines = start.model.config, []
    if found.positions == "learned" and config.block_size > found.block_size:
        lines.append(
            f"block_size: found {config.block_size}; allowed: at most {found.block_size}, the"
            " positions that init_from has"
        )
    if config.tokenizer == "from_init" and start.tokenizer is None:
        lines.append("tokenizer: found from_init; allowed: another, for init_from has none")
    try:
        # rows are the run's own where its tokenizer is
        shape = with_shape_of(found, config, vocab_size=config.vocab_size)
        trainable_names(make_shapes(shape).state_dict(), config.freeze)
    except ConfigError as error:
        lines.append(str(error))
    if lines:
        raise ConfigError("\n".join(lines))


def check_lora(start: Checkpoint, config: Config) -> None:
    """Raise ConfigError where tokens of a run with LoRA would surely start anew."""
    if not config.lora_rank or config.tokenizer == "from_init":
        return
    if start.tokenizer is None:
        raise ConfigError(refuse_lora(config, "init_from has no tokenizer: all tokens start anew"))
    rows = match_rows(start.tokenizer, ByteTokenizer()) if config.tokenizer == "byte" else None
    if rows and -1 in rows:
        raise ConfigError(refuse_lora(config, describe_rows(rows, start.tokenizer)))


def check_new_rows(config: Config, why: str) -> None:
    """Raise ConfigError where rows that start anew would not train; `why` says how many do."""
    if config.lora_rank:
        raise ConfigError(refuse_lora(config, why))
    frozen = [each for each in config.freeze if each.partition(".")[0] in ("wte", "lm_head")]
    if frozen:
        raise ConfigError(
            f"freeze: found {frozen[0]}; allowed: what leaves it to train, since {why}"
        )


def refuse_lora(config: Config, why: str) -> str:
    """Return the line that says why the changes of LoRA would not do."""
    return f"lora_rank: found {config.lora_rank}; allowed: 0, since {why}"


def with_shape_of(model: Config, config: Config, *, vocab_size: int | None = None) -> Config:
    """Return `config` with the shape of `model`."""
    shape = {key: model.resolved()[key] for key in SHAPE_KEYS}
    return get_config(config, **shape, vocab_size=vocab_size or model.vocab_size)


def describe_shape(asked: Config, adapted: Config) -> list[str]:
    """Return a line on the keys that are as the weights have them, where `asked` differs."""
    before, now = asked.resolved(), adapted.resolved()
    changed = [
        f"{key} {now[key]} (not {before[key]})"
        for key in ("vocab_size", *SHAPE_KEYS)
        if before[key] != now[key]
    ]
    return [f"as the weights of init_from have it: {', '.join(changed)}"] if changed else []


def trainable_names(names: Iterable[str], freeze: Iterable[str]) -> list[str]:
    """Return the `names` of weights that none of `freeze`, such as wte or h.0, begins.

    ConfigError for one that begins none, and where nothing is left.
    """
    names, freeze = list(names), list(freeze)
    parts = sorted({name.rpartition(".")[0] for name in names})
    for each in freeze:
        if not any(_begins(each, name) for name in names):
            raise ConfigError(f"freeze: found {each}; allowed: the start of {name_some(parts, 4)}")
    left = [name for name in names if not any(_begins(each, name) for each in freeze)]
    if not left:
        raise ConfigError(f"freeze: found {', '.join(freeze)}; allowed: what leaves some weights")
    return left


def _begins(part: str, name: str) -> bool:
    return f"{name}.".startswith(f"{part}.")


def match_rows(known: Tokenizer | None, wanted: Tokenizer) -> list[int] | None:
    """Return for each token of `wanted` its number in `known`, or -1; None where both are one."""
    if known is None:
        return [-1] * wanted.size
    if known.to_dict() == wanted.to_dict():
        return None
    numbers = {known.token_bytes(token): token for token in range(known.size)}
    return [numbers.get(wanted.token_bytes(token), -1) for token in range(wanted.size)]


def take_rows(weight: Tensor, rows: list[int], drawn: Tensor) -> Tensor:
    """Return (V, C) with the `rows` of `weight`; others are the mean of those, and a draw's row.

    The mean gives a new token no more than its share at first (Hewitt 2021).
    """
    kept = torch.tensor([row for row in rows if row >= 0], dtype=torch.long)
    mean = weight[kept].mean(dim=0) if len(kept) else torch.zeros(weight.shape[1])
    new = drawn + mean
    places = torch.tensor([row >= 0 for row in rows])
    new[: len(rows)][places] = weight[kept]
    return new


def describe_rows(rows: list[int], known: Tokenizer | None) -> str:
    """Return in words how many tokens keep their rows."""
    if known is None:
        return f"init_from has no tokenizer: all {len(rows):,} tokens start anew"
    anew = rows.count(-1)
    return f"{len(rows) - anew:,} of {len(rows):,} tokens keep their rows, {anew:,} start anew"
