"""cpu.c as Python sees it: its structures, and its functions with the types of their arguments."""

import ctypes
from functools import cache
from pathlib import Path

from nanogpt2.device.compiler import load_library

SOURCE = Path(__file__).with_name("cpu.c")
MLP_KINDS = ("gelu", "relu2", "swiglu")  # by their numbers in cpu.c

POINTER, INT, INT64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64


class LinearWeights(ctypes.Structure):
    """A linear layer in panels; `bytes` is null where its weights are floats."""

    _fields_ = (("panels", POINTER), ("bytes", POINTER), ("inputs", INT), ("outputs", INT))


class NormWeights(ctypes.Structure):
    """A norm; without a shift its pointer is null."""

    _fields_ = (("gain", POINTER), ("shift", POINTER))


class BlockWeights(ctypes.Structure):
    """A block of the model."""

    _fields_ = (
        *((name, NormWeights) for name in ("norm_1", "norm_2")),
        *((name, LinearWeights) for name in ("attention_in", "attention_out", "mlp_in", "mlp_out")),
        ("taps", POINTER),
    )


SIZES = (
    *("n_layer", "n_head", "n_kv_head", "head_size", "n_embd", "n_hidden"),
    *("block_size", "vocab_size", "centred", "qk_norm", "mlp", "n_taps"),
)


class ModelWeights(ctypes.Structure):
    """A model: its sizes, its switches and its weights."""

    _fields_ = (
        *((name, INT) for name in SIZES),
        *((name, ctypes.c_float) for name in ("eps", "qk_eps", "softcap")),
        *((name, POINTER) for name in ("tokens", "positions", "frequencies", "blocks")),
        ("norm", NormWeights),
        ("head", LinearWeights),
    )


class Cache(ctypes.Structure):
    """Keys and values of all rows, and the floats from one layer's to the next's."""

    _fields_ = (("rows", POINTER), ("layer_step", INT64))


class DrawControls(ctypes.Structure):
    """The controls of a draw."""

    _fields_ = (
        ("temperature", ctypes.c_double),
        ("top_p", ctypes.c_double),
        ("min_p", ctypes.c_double),
        ("repetition_penalty", ctypes.c_float),
        ("top_k", INT),
    )


# The result of each function, and its arguments.
FUNCTIONS = {
    "padded_size": (INT64, [INT64]),
    "panel_floats": (INT64, [INT, INT]),
    "panel_bytes": (INT64, [INT, INT]),
    "cache_floats": (INT64, [POINTER]),
    "scratch_floats": (INT64, [POINTER, INT, INT]),
    "draw_floats": (INT64, [INT, INT]),
    "group_size": (INT, []),
    "pack": (None, [*[POINTER] * 3, *[INT] * 3]),
    "pack_bytes": (None, [*[POINTER] * 4, *[INT] * 3]),
    "read_tokens": (INT, [*[POINTER] * 2, INT, *[POINTER] * 3, INT, *[POINTER] * 2, INT]),
    "read_and_draw": (INT, [*[POINTER] * 2, INT, *[POINTER] * 4, INT, *[POINTER] * 4, INT]),
    "draw_rows": (
        None,
        [POINTER, INT64, INT, INT, POINTER, INT64, POINTER, INT, *[POINTER] * 3, INT],
    ),
    "go_on": (
        INT,
        [
            *[POINTER] * 2,
            INT,
            INT,
            *[POINTER] * 4,
            INT64,
            *[POINTER] * 3,
            INT64,
            *[POINTER] * 2,
            INT,
        ],
    ),
}


@cache
def load() -> ctypes.CDLL:
    """Return the library of cpu.c; DeviceError where no compiler makes it."""
    library = load_library(SOURCE)
    for name, (result, arguments) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
