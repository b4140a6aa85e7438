"""Characters to tokens in one pass: characters.c as Python sees it, where there is a C compiler."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nanogpt2.base.system.errors import DeviceError
from nanogpt2.device.compiler import load_library

SOURCE = Path(__file__).with_name("characters.c")
WORTH = 1 << 25  # characters that numpy is through with before a library is loaded


@cache
def load() -> ctypes.CDLL | None:
    """Return the library; None where no compiler makes it."""
    try:
        library = load_library(SOURCE, threads=False)
    except DeviceError:
        return None
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    for function in (library.encode_bytes, library.encode_points):
        function.argtypes = [ctypes.c_char_p, size, pointer, size, pointer]
    return library


def encode(text: str, table: npt.NDArray[np.int32]) -> npt.NDArray[np.uint16] | None:
    """Return the token of each character, from a table of those of the code points.

    Tokens are below 2**16; unknown characters are negative in the table, as its last entry is,
    which stands for all above it. None where `text` has one, where the library is not there, or
    where neither this text nor one before was worth loading it.
    """
    if len(text) < WORTH and not load.cache_info().currsize:
        return None
    if (library := load()) is None:
        return None
    try:
        codes, function = text.encode("latin-1"), library.encode_bytes
    except UnicodeEncodeError:
        codes, function = text.encode("utf-32-le", "surrogatepass"), library.encode_points
    tokens = np.empty(len(text), np.uint16)
    found = function(codes, len(text), table.ctypes.data, len(table) - 1, tokens.ctypes.data)
    return tokens if found else None
