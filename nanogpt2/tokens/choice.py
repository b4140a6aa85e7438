"""The key `tokenizer`: a name or a path, checked before a run, of a name without numpy."""

import os
from pathlib import Path
from typing import Any

from nanogpt2.base.system.errors import ConfigError
from nanogpt2.base.system.extras import import_extra
from nanogpt2.config.config import Config
from nanogpt2.config.schema import is_path

FOLDER = Path("data/tokenizers")  # DVC sees each change in it; a dep cannot depend on a key


def check_tokenizer(config: Config, *, in_pipeline: bool = False) -> None:
    """Raise NanoGPT2Error with a line where a run cannot have its key `tokenizer`.

    With `in_pipeline` a path outside of `FOLDER`, whose changes DVC would not see, is refused.
    """
    if is_path(config.tokenizer):
        path = Path(os.path.normpath(config.tokenizer))
        if in_pipeline and FOLDER not in (path, *path.parents):
            raise ConfigError(
                f"tokenizer: found {config.tokenizer}; allowed: a path in {FOLDER} in the pipeline,"
                " which sees changes there (it is free when a stage is run by hand)"
            )
        from nanogpt2.tokens.files import open_tokenizer

        if config.vocab_size < (size := open_tokenizer(config.tokenizer).size):
            raise ConfigError(
                f"vocab_size: found {config.vocab_size}; allowed: at least {size}, the size of the"
                f" tokenizer {config.tokenizer}"
            )
    elif config.tokenizer in ("bpe", "gpt2"):
        import_extra("tiktoken", extra="bpe")
        if config.tokenizer == "gpt2":
            from nanogpt2.tokens.bpe.gpt2 import check_files

            check_files()


def read_named(tokenizer: str) -> str | dict[str, Any]:
    """Return the key `tokenizer` where it is a name, else the tokenizer there as plain data."""
    if not is_path(tokenizer):
        return tokenizer
    from nanogpt2.tokens.files import open_tokenizer

    return open_tokenizer(tokenizer).to_dict()
