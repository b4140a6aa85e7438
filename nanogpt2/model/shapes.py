"""A model without memory: the names and shapes of its weights, before there are any."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from nanogpt2.config.config import Config
from nanogpt2.model.gpt import GPT


class WithoutInitialValues(TorchFunctionMode):
    """Let torch's modules draw no weights: on meta, that alone imports its compiler for seconds."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def make_shapes(config: Config | Mapping[str, Any]) -> GPT:
    """Return the model that `config` describes, its weights without memory (on torch's meta)."""
    with torch.device("meta"), WithoutInitialValues():
        return GPT(config)
