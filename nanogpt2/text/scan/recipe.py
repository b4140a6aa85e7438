"""What is made of a corpus: all that the prepared data depends on beside the text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nanogpt2.config.groups import CleanConfig


@dataclass(frozen=True)
class Recipe:
    """How text is read, cleaned, split and encoded: keys of params.yaml.

    `tokenizer` is the name of one that is made for the text, or plain data that describes one,
    whatever `vocab_size` is.
    """

    tokenizer: str | Mapping[str, Any]
    vocab_size: int
    val_fraction: float
    test_fraction: float
    split: str = "auto"  # or contiguous, or documents
    separator: str = "\n"  # between documents
    text_field: str = "text"  # of a record that has the text
    find_copies: bool = True
    clean: CleanConfig = field(default_factory=CleanConfig)
