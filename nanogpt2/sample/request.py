"""What to generate, checked: prompts, seeds, lengths and controls."""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nanogpt2.base.system.arguments import whole_number
from nanogpt2.base.system.errors import ConfigError, DataError
from nanogpt2.decode.draw import Controls

NEUTRAL = Controls()
WINDOWS = ("exact", "half")
MOST_TOKENS = 10_000_000  # of one sample
LARGEST_SEED = 2**64 - 1


@dataclass(frozen=True)
class Request:
    """What to generate: one sample for each prompt, with a seed of its own.

    ConfigError or DataError where a value is none that can be used.
    """

    prompts: Sequence[Sequence[int]]  # tokens, at least one in each
    seeds: Sequence[int]
    max_new_tokens: int
    controls: Controls = NEUTRAL
    window: str = "exact"
    n_tokens: int | None = None  # draw token numbers below it only
    chunk: int = 16  # tokens that are handed out together, at most
    use_cache: bool = True  # False: read the whole window for each token, with the model's modules
    drafts: bool = True  # of one sample, guess tokens and check several at once where that is quick

    def __post_init__(self) -> None:
        if self.window not in WINDOWS:
            raise ConfigError(f"window: found {self.window}; allowed: {', '.join(WINDOWS)}")
        if not isinstance(self.controls, Controls):
            raise ConfigError(f"controls: found {self.controls!r}; allowed: Controls(...)")
        check_count(self.max_new_tokens)
        whole_number("chunk", self.chunk, least=1)
        for seed in self.seeds:
            whole_number("seed", seed, least=0, most=LARGEST_SEED)
        if len(self.seeds) != len(self.prompts):
            raise DataError(f"found {len(self.seeds)} seeds for {len(self.prompts)} prompts")
        object.__setattr__(self, "prompts", [as_prompt(prompt) for prompt in self.prompts])

    def check_for(self, vocab_size: int) -> None:
        """Raise where a model with `vocab_size` rows cannot do it."""
        check_n_tokens(self.n_tokens, vocab_size)
        for prompt in self.prompts:
            require_below(vocab_size, min(prompt), max(prompt))


def as_prompt(tokens: Any) -> list[int]:
    """Return `tokens` as a list; DataError where they are no token numbers, or none."""
    try:
        prompt = list(map(operator.index, tokens))
    except TypeError as error:
        found = "a text" if isinstance(tokens, str) else repr(tokens)[:60]
        raise DataError(f"prompts: found {found}; allowed: lists of token numbers") from error
    if not prompt:
        raise DataError("prompts: found an empty one; allowed: at least one token in each")
    return prompt


def as_idx(idx: Any, *, vocab_size: int) -> Tensor:
    """Return tokens (B, T), at least one in each row, as int64; DataError where they are not."""
    try:
        tokens = torch.as_tensor(idx)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"idx: found {repr(idx)[:60]}; allowed: token numbers (B, T)") from error
    if tokens.dtype.is_floating_point or tokens.dtype.is_complex or tokens.dtype == torch.bool:
        raise DataError(f"idx: found {tokens.dtype}; allowed: integers, such as torch.long")
    if tokens.dim() != 2 or not tokens.numel():
        raise DataError(
            f"idx: found the shape {tuple(tokens.shape)}; allowed: (B, T), at least one token in"
            " each row"
        )
    tokens = tokens.long()
    require_below(vocab_size, *(int(end) for end in tokens.aminmax()))
    return tokens


def check_count(max_new_tokens: Any) -> None:
    """Raise ConfigError where it is no number of tokens to draw."""
    whole_number("max_new_tokens", max_new_tokens, least=0, most=MOST_TOKENS)


def check_n_tokens(n_tokens: Any, vocab_size: int) -> None:
    """Raise ConfigError where it is neither None nor a number of tokens that the model has."""
    if n_tokens is not None:
        whole_number("n_tokens", n_tokens, least=1, most=vocab_size)


def check_generator(generator: Any, device: torch.device) -> None:
    """Raise ConfigError where it is neither None nor a generator of torch's on `device`."""
    if generator is None:
        return
    if not isinstance(generator, torch.Generator) or generator.device.type != device.type:
        found = getattr(generator, "device", type(generator).__name__)
        raise ConfigError(
            f"generator: found {found}; allowed: null or a torch.Generator on {device.type}"
        )


def require_below(vocab_size: int, least: int, most: int) -> None:
    """Raise DataError where tokens from `least` to `most` are not all below `vocab_size`."""
    if least < 0 or most >= vocab_size:
        found = least if least < 0 else most
        raise DataError(f"found the token {found}; allowed: from 0 to {vocab_size - 1}")


def require_finite(logits: Tensor) -> Tensor:
    """Return `logits`; DataError where one is no number, as damaged weights give it."""
    if logits.isnan().any():
        raise DataError("the model's logits are not numbers: its weights are not finite")
    return logits
