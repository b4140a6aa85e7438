"""The driver of a GPU, started in a thread while Python imports torch."""

import ctypes
import os
from contextlib import suppress
from ctypes import byref, c_int, c_void_p
from threading import Thread


def start_beside(device: str) -> None:
    """Begin to make a context on a GPU, where the key `device` may mean one; wait for nothing.

    Torch finds it there: half a second that its import, which takes seconds, does not notice.
    """
    kind, _, number = device.partition(":")
    if kind in ("auto", "cuda"):
        number = number or os.environ.get("LOCAL_RANK", "0")
        Thread(target=_make_context, args=(int(number),), daemon=True).start()


def _make_context(number: int) -> None:
    """Make the context that all in this process share, CUDA's primary one; say nothing of errors.

    Torch will meet them too.
    """
    with suppress(OSError, AttributeError):  # there is no such driver
        driver = ctypes.CDLL("libcuda.so.1")
        device, context = c_int(), c_void_p()
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(byref(device), number) == 0:
            driver.cuDevicePrimaryCtxRetain(byref(context), device)
