"""windows.c as Python sees it: its functions with the types of their arguments.

Where no C compiler makes it (CC=false switches it off), numpy gives the same results, more slowly.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

from nanogpt2.base.system.errors import DeviceError
from nanogpt2.device.compiler import load_library
from nanogpt2.text.copies.constants import BASE, GRAM, MASK, PERIOD, REACH, SPREAD, WINDOW

SOURCE = Path(__file__).with_name("windows.c")
DEFINES = {
    **{"WINDOW": WINDOW, "REACH": REACH, "PERIOD": PERIOD, "GRAM": GRAM},
    **{"BASE": BASE, "INVERSE": pow(BASE, -1, MASK + 1), "SPREAD": SPREAD},
}
WORTH = 1 << 20  # characters that numpy is through with before a library is loaded

POINTER, INT, INT64, UINT64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_uint64
CODES = [POINTER, INT]  # and how many bytes each has
BLACK = [POINTER, INT64]
# The result of each function, and its arguments.
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "sample_windows": (INT64, [*CODES, INT64, INT64, *BLACK, UINT64, *[POINTER] * 3]),
    "low_windows": (INT64, [*CODES, INT64, INT64, UINT64, POINTER]),
    "mark_found": (None, [POINTER, INT64, *[POINTER] * 2]),
    "group_records": (None, [*[POINTER] * 2, INT64, INT, INT64, *[POINTER] * 2]),
    "find_repeats": (INT64, [POINTER, INT64, POINTER]),
    "chain_matches": (None, [*[POINTER] * 2, *[INT64] * 3, POINTER]),
    "cut_segments": (INT64, [*[POINTER] * 3, *[INT64] * 4, *[POINTER] * 2]),
    "count_shared": (INT64, [*CODES, INT64, *CODES, INT64, *BLACK, UINT64, POINTER]),
}


class Sought(ctypes.Structure):
    """Hashes that are looked up, and what tells of most others that they are none of them."""

    _fields_ = (
        *((name, POINTER) for name in ("hashes", "buckets", "first", "second")),
        *((name, UINT64) for name in ("level", "other")),
        *((name, ctypes.c_int32) for name in ("shift", "shift_of_looks")),
    )


def find_library(size: int) -> ctypes.CDLL | None:
    """Return the library for work on `size` characters; None where it is not worth it or not there.

    Once it is loaded, it is worth it for less too.
    """
    if size < WORTH and not load.cache_info().currsize:
        return None
    found = load()
    return None if isinstance(found, str) else found


@cache
def load() -> ctypes.CDLL | str:
    """Return the library, or in words why there is none."""
    try:
        library = load_library(SOURCE, threads=False, **DEFINES)
    except DeviceError as error:
        return str(error)
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
