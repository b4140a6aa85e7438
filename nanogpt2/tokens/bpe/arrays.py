"""Arrays of token numbers, and what every tokenizer says of a character that it cannot encode."""

import numpy as np
import numpy.typing as npt

from nanogpt2.base.system.errors import DataError

TokenArray = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


def token_dtype(size: int) -> type[np.uint16] | type[np.uint32]:
    """Return the smallest of uint16 and uint32 that holds `size` tokens."""
    return np.uint16 if size <= 2**16 else np.uint32


def as_utf8(text: str) -> bytes:
    """Return the bytes of `text`; DataError where it holds half a surrogate pair."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise unknown_character(text, error.start, "all of Unicode") from error


def unknown_character(text: str, at: int, known: str) -> DataError:
    """Return the error that names the character number `at` of `text`, and what is `known`."""
    return DataError(
        f"the tokenizer does not know the character {text[at]!r} (U+{ord(text[at]):04X}),"
        f" number {at + 1} of the text; it knows {known}"
    )
