"""In: params.yaml, a preset or a mapping. Out: a valid `Config`, or one line for each mistake."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nanogpt2.config.config import Config as Config
    from nanogpt2.config.config import get_config as get_config


def __getattr__(name: str) -> Any:  # the training guide's `from nanogpt2.config import get_config`
    if name not in ("Config", "get_config"):
        raise AttributeError(f"module 'nanogpt2.config' has no attribute '{name}'")
    from nanogpt2.config import config

    return getattr(config, name)
